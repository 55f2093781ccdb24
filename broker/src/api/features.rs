//! `UpdateFeatures` (key 57): finalized features (KIP-584). A broker in `ZooKeeper` mode supports none, so all that
//! is left of it are the checks.

use std::collections::HashSet;

use barnabas_core::controller::ControllerError;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use kafka_protocol::protocol::StrBytes;

use super::error_code::{ToErrorCode as _, message_of};
use super::{Context, RequestError};

/// Upgrade types, from v1 on; v0 says only whether a downgrade is allowed.
const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;

/// `UpdateFeatures` (key 57, v0–1): on the controller only.
pub async fn update_features(
    request: UpdateFeaturesRequest,
    context: &Context<'_>,
) -> UpdateFeaturesResponse {
    if !context.broker.controller.is_active() {
        let error = ControllerError::NotController;
        return UpdateFeaturesResponse::default()
            .with_error_code(error.error_code())
            .with_error_message(Some(StrBytes::from_static_str(message_of(error))));
    }
    let mut seen = HashSet::new();
    let updates = request.feature_updates.into_iter();
    let updates = updates.filter(|update| seen.insert(update.feature.clone()));
    let results = updates.map(|update| {
        let upgrade_type = match (context.version, update.allow_downgrade) {
            (0, false) => UPGRADE,
            (0, true) => SAFE_DOWNGRADE,
            _ => update.upgrade_type,
        };
        let refusal = refusal(&update, upgrade_type);
        UpdatableFeatureResult::default()
            .with_error_code(RequestError::Invalid.error_code())
            .with_error_message(Some(StrBytes::from_string(refusal)))
            .with_feature(update.feature)
    });
    UpdateFeaturesResponse::default()
        .with_error_message(None)
        .with_results(results.collect())
}

/// What is wrong with an update, in Kafka's words and order; nothing is ever right.
fn refusal(update: &FeatureUpdateKey, upgrade_type: i8) -> String {
    let level = update.max_version_level;
    if update.feature.is_empty() {
        return "Feature name can not be empty.".to_owned();
    }
    if !matches!(upgrade_type, UPGRADE | SAFE_DOWNGRADE | UNSAFE_DOWNGRADE) {
        return "Received unknown upgrade type.".to_owned();
    }
    if level < 1 && upgrade_type != UPGRADE {
        return "Can not delete non-existing finalized feature.".to_owned();
    }
    if level < 1 {
        return format!(
            "Can not provide versionLevel: {level} less than 1 without setting the SAFE downgradeType in the request."
        );
    }
    "Could not apply finalized feature update because the provided feature is not supported."
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_come_in_kafkas_order() {
        let refused = |feature: &str, level, upgrade_type| {
            let update = FeatureUpdateKey::default()
                .with_feature(StrBytes::from_string(feature.to_owned()))
                .with_max_version_level(level);
            refusal(&update, upgrade_type)
        };
        assert!(refused("", 0, 9).contains("empty"));
        assert!(refused("f", 0, 9).contains("unknown upgrade type"));
        assert!(refused("f", 0, SAFE_DOWNGRADE).contains("non-existing"));
        assert!(refused("f", -1, UPGRADE).contains("versionLevel: -1 less than 1"));
        assert!(refused("f", 1, UPGRADE).contains("not supported"));
    }
}
