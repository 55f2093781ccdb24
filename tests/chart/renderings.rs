//! What the chart makes of ten files of values. `UPDATE_EXPECT=1` writes the expected texts anew.

use std::fs;
use std::path::PathBuf;

use barnabas_tests::tools::repository;
use expect_test::expect_file;

use super::template;

/// Name and path of each file of values.
pub(crate) fn value_files() -> Vec<(String, PathBuf)> {
    let directory = repository().join("tests/chart/values");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, path)
        })
        .collect();
    files.sort();
    files
}

/// The chart with one of the files.
pub(crate) fn rendering(path: &std::path::Path) -> String {
    let output = template(&["--values", &path.display().to_string()]);
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {problem}", path.display());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn renderings_are_as_they_were() {
    let files = value_files();
    assert_eq!(files.len(), 10);
    for (name, path) in files {
        let golden = repository().join(format!("tests/golden/chart/{name}.yaml"));
        expect_file![golden].assert_eq(&rendering(&path));
    }
}

#[test]
fn alerts_and_dashboard_use_figures_that_brokers_have() {
    let figures = fs::read_to_string(repository().join("broker/src/metrics/reference.rs")).unwrap();
    for file in ["alerts.yaml", "dashboard.json"] {
        let path = super::chart().join("files").join(file);
        let text = fs::read_to_string(path).unwrap();
        let words =
            text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
        let used = words.filter(|word| word.starts_with("kafka_") || word.starts_with("process_"));
        let mut count = 0;
        for figure in used {
            let figure = figure.replace("_bucket", "_count");
            assert!(
                figures.contains(&format!("\"{figure}\"")),
                "{file}: {figure}"
            );
            count += 1;
        }
        assert!(count >= 6, "{file} uses {count} figures");
    }
}

#[test]
fn the_chart_brings_the_definition_that_the_operator_generates() {
    let generated = fs::read_to_string(repository().join("manifests/crds/topics.yaml")).unwrap();
    expect_file![super::chart().join("files/topics.barnabas.dev.yaml")].assert_eq(&generated);
}
