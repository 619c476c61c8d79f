//! Converts objects of `v1beta1` to `v1`, as an API server does.

use serde_json::Value;

/// The key of the Node name in `topology` of a v1beta1 endpoint.
const HOSTNAME: &str = "kubernetes.io/hostname";
/// The key of the zone in `topology` of a v1beta1 endpoint.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Sets the `apiVersion` of an object, if it has one. This converts kinds with the same fields in both versions.
pub fn set_version(object: &mut Value, version: &str) {
    if let Some(found) = object.get_mut("apiVersion") {
        *found = version.into();
    }
}

/// Converts an EndpointSlice to `v1`: its fields `nodeName` and `zone` replace `topology`. All other fields are the same.
pub fn convert_slice(slice: &mut Value) {
    set_version(slice, "discovery.k8s.io/v1");
    let Some(endpoints) = slice.get_mut("endpoints").and_then(Value::as_array_mut) else { return };
    for endpoint in endpoints.iter_mut().filter_map(Value::as_object_mut) {
        let Some(Value::Object(mut topology)) = endpoint.remove("topology") else { continue };
        for (field, label) in [("nodeName", HOSTNAME), ("zone", ZONE)] {
            if let Some(value) = topology.remove(label)
                && endpoint.get(field).is_none_or(Value::is_null)
            {
                endpoint.insert(field.to_owned(), value);
            }
        }
    }
}
