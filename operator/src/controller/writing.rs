//! What is written to the API server: status and finalizer, at the pace that it bears.

use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use super::reconcile::{Pass, PassError};
use super::{Context, Written, lock};
use crate::resource::{FINALIZER, Topic, TopicStatus};
use crate::topic::claims::Name;

/// Who writes status.
const FIELD_MANAGER: &str = "barnabas-operator-status";

/// Resource versions of one kind grow.
fn version(metadata: &ObjectMeta) -> u64 {
    let version = metadata.resource_version.as_deref();
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The status as it is: the watch may not have told yet what was written a moment ago.
pub(super) fn latest_status(context: &Context, name: &Name, topic: &Topic) -> Option<TopicStatus> {
    let mut memory = lock(&context.memory);
    let written = memory.get_mut(name).and_then(|one| one.written.as_mut());
    let newer = written.and_then(|written| {
        if written.uid != topic.metadata.uid || written.version <= version(&topic.metadata) {
            // The watch has caught up. It must not say so itself: a pass may be about to begin with what was before.
            written.status = None;
        }
        written.status.clone()
    });
    newer.or_else(|| topic.status.clone())
}

impl Pass<'_> {
    pub(super) async fn write_status(&self, status: &TopicStatus) -> Result<(), PassError> {
        let Self { topic, context, .. } = self;
        context.status_writes.turn().await;
        let patch = json!({
            "apiVersion": Topic::api_version(&()),
            "kind": Topic::kind(&()),
            // A resource of that name that came later is not meant.
            "metadata": {"name": self.name.name, "namespace": self.name.namespace, "uid": topic.metadata.uid},
            "status": serde_json::to_value(status)?,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let turn = context.flow.turn().await;
        let api = self.api();
        let name = &self.name.name;
        let written = if topic.spec.malformed.is_some() {
            // The API server cannot apply to what its schema does not know.
            let params = PatchParams::default();
            api.patch_status(name, &params, &Patch::Merge(&patch)).await
        } else {
            api.patch_status(name, &params, &Patch::Apply(&patch)).await
        };
        turn.done(&written);
        match written {
            Ok(found) => {
                context
                    .metrics
                    .count("barnabas_operator_status_writes_total", &[], 1);
                let written = Written {
                    at: Instant::now(),
                    uid: found.meta().uid.clone(),
                    version: version(found.meta()),
                    status: Some(status.clone()),
                };
                context.remember(&self.name, |memory| memory.written = Some(written));
                Ok(())
            }
            // It is gone, or another has its name: the watch tells.
            Err(kube::Error::Api(gone)) if matches!(gone.code, 404 | 409) => Ok(()),
            Err(error) => {
                self.count_api_error(&error);
                Err(error.into())
            }
        }
    }

    pub(super) fn count_api_error(&self, error: &kube::Error) {
        let code = match error {
            kube::Error::Api(status) => status.code.to_string(),
            _ => "none".to_owned(),
        };
        let pairs = [("code", code.as_str())];
        self.context
            .metrics
            .count("barnabas_operator_api_errors_total", &pairs, 1);
    }

    /// What comes back may be as malformed as what was there.
    fn api(&self) -> Api<DeserializeGuard<Topic>> {
        Api::namespaced(self.context.client.clone(), &self.name.namespace)
    }

    async fn patch_finalizers(&self, patch: serde_json::Value) -> Result<(), PassError> {
        let patch: Patch<()> = Patch::Json(serde_json::from_value(patch)?);
        let params = PatchParams::default();
        let turn = self.context.flow.turn().await;
        let patched = self.api().patch(&self.name.name, &params, &patch).await;
        turn.done(&patched);
        match patched {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(gone)) if gone.code == 404 => Ok(()),
            Err(error) => {
                self.count_api_error(&error);
                Err(error.into())
            }
        }
    }

    pub(super) async fn ensure_finalizer(&self) -> Result<(), PassError> {
        if self.topic.has_finalizer() {
            return Ok(());
        }
        let uid = &self.topic.metadata.uid;
        let same = json!({"op": "test", "path": "/metadata/uid", "value": uid});
        let patch = if self.topic.finalizers().is_empty() {
            json!([
                same,
                {"op": "test", "path": "/metadata/finalizers", "value": null},
                {"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]},
            ])
        } else {
            json!([same, {"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER}])
        };
        self.patch_finalizers(patch).await
    }

    pub(super) async fn remove_finalizer(&self) -> Result<(), PassError> {
        let mut finalizers = self.topic.finalizers().iter();
        let Some(at) = finalizers.position(|one| one == FINALIZER) else {
            return Ok(());
        };
        let path = format!("/metadata/finalizers/{at}");
        self.patch_finalizers(json!([
            {"op": "test", "path": "/metadata/uid", "value": self.topic.metadata.uid},
            {"op": "test", "path": path, "value": FINALIZER},
            {"op": "remove", "path": path},
        ]))
        .await
    }
}
