//! What a real API server says.

use barnabas_tests::kubernetes::ControlPlane;

#[test]
fn a_control_plane_starts_and_controllers_work() {
    let directory = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start(directory.path()).unwrap();
    let version = plane.kubectl(&["version"]).unwrap();
    assert!(version.contains("Server Version: v1.34.4"), "{version}");
    plane.kubectl(&["create", "namespace", "shop"]).unwrap();
    let list = plane.helm(&["list", "--all-namespaces"]).unwrap();
    assert!(list.starts_with("NAME"), "{list}");
    plane.kubectl(&["delete", "namespace", "shop"]).unwrap();
}
