//! The chart's README lists all values, as the schema describes them. `UPDATE_EXPECT=1` writes the table anew.

use std::fmt::Write as _;
use std::fs;

use expect_test::expect_file;
use serde_json::Value;

use super::chart;

const BEGIN: &str = "<!-- values: made from values.schema.json and values.yaml -->\n";
const END: &str = "<!-- end of values -->\n";

#[test]
fn the_readme_lists_all_values() {
    let path = chart().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let values = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let values: Value = serde_yaml::from_str(&values).unwrap();
    let schema = fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut table = "| key | default | what it is |\n|---|---|---|\n".to_owned();
    rows("", &values, &schema, &mut table);
    expect_file![path].assert_eq(&format!("{before}{BEGIN}{table}{END}{after}"));
}

fn rows(path: &str, value: &Value, schema: &Value, table: &mut String) {
    let Some(properties) = schema["properties"].as_object() else {
        let default = match value {
            Value::String(text) if text.is_empty() => "`\"\"`".to_owned(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let mut description = schema["description"].as_str().unwrap().replace('|', "\\|");
        if let Some(choices) = schema["enum"].as_array() {
            let choices: Vec<_> = choices
                .iter()
                .map(|choice| format!("`{}`", text(choice)))
                .collect();
            write!(description, " One of {}.", choices.join(", ")).unwrap();
        }
        if let (Some(low), Some(high)) = (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
            write!(description, " {low} to {high}.").unwrap();
        }
        writeln!(table, "| `{path}` | {default} | {description} |").unwrap();
        return;
    };
    for (key, schema) in properties {
        if path.is_empty() {
            if key != "global" {
                rows(key, &value[key], schema, table);
            }
        } else {
            rows(&format!("{path}.{key}"), &value[key], schema, table);
        }
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
