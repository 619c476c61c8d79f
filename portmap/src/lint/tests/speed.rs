//! The time of large sets. The measurement is ignored by default, because it needs an optimized build:
//! `cargo test --release -p portmap --lib lint::tests::speed -- --ignored --nocapture`.

use std::time::Instant;

use super::settings;
use crate::lint::{
    check,
    set::{Origin, Set},
};

/// A Service and its Deployment, in the block style of most manifests. `$` stands for a number, `@` for a namespace.
const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: s$, namespace: n@}
spec:
  selector: {app.kubernetes.io/name: shop, app.kubernetes.io/instance: s$, tier: web}
  ports:
    - name: http
      port: 80
      targetPort: http
    - name: metrics
      port: 9090
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: s$, namespace: n@}
spec:
  selector:
    matchLabels: {app.kubernetes.io/name: shop, app.kubernetes.io/instance: s$, tier: web}
  template:
    metadata:
      labels: {app.kubernetes.io/name: shop, app.kubernetes.io/instance: s$, tier: web}
    spec:
      containers:
        - name: web
          image: web:1
          ports:
            - name: http
              containerPort: 8080
            - containerPort: 9090
          readinessProbe:
            httpGet:
              port: http
";

/// A NetworkPolicy for the pods of the Deployment, and an Ingress to the Service.
const POLICY: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: s$, namespace: n@}
spec:
  podSelector:
    matchLabels: {app.kubernetes.io/instance: s$}
  ingress:
    - ports:
        - port: 8080
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: s$, namespace: n@}
spec:
  defaultBackend:
    service:
      name: s$
      port:
        name: http
";

/// 10,000 copies of the documents, in this number of namespaces.
fn copies(documents: &str, namespaces: usize) -> String {
    let copy = |number: usize| documents.replace('$', &number.to_string()).replace('@', &(number % namespaces).to_string());
    (0..10_000).map(copy).collect()
}

#[test]
#[ignore = "a measurement"]
fn ten_thousand_services() {
    for namespaces in [1, 100] {
        for (name, documents) in [("with Deployments", SERVICE.to_owned()), ("with policies too", SERVICE.to_owned() + POLICY)]
        {
            let text = copies(&documents, namespaces);
            let start = Instant::now();
            let mut set = Set::new(Origin::Files, "default");
            set.read("all.yaml", &text);
            let read = start.elapsed();
            let start = Instant::now();
            let findings = check(&set, &settings());
            let checked = start.elapsed();
            assert_eq!(findings, []);
            let size = text.len() / 1_000_000;
            println!("10,000 Services {name}, {namespaces} namespaces: read {size} MB in {read:.0?}, checked in {checked:.1?}");
        }
    }
}
