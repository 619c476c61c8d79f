//! Objects of `v1beta1`, as an API server converts them to v1.

use serde_json::Value;

/// Says where an endpoint runs, in the map that v1 has no more.
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Makes an object that is the same in both versions one of this version.
pub fn set_version(object: &mut Value, version: &str) {
    if let Some(found) = object.get_mut("apiVersion") {
        *found = version.into();
    }
}

/// Gives the endpoints of a slice the fields of v1 that stand for their `topology`. Everything else is the same.
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
