//! Documents with errors, lists, lines, and annotations that ignore codes.

use super::{codes, deployment, findings, object, service, settings};
use crate::lint::{
    Settings, catalog, check,
    set::{Origin, Set},
};

const BAD: &str = "{port: 80, targetPort: web}";
const PODS: &str = "ports: [{name: http, containerPort: 8080}]";

#[test]
fn a_broken_document_leaves_the_others_readable() {
    let text = format!("a: [\n---\n{}---\nb: }}\n", service("{port: 80, targetPort: '80'}"));
    assert_eq!(codes(&[&text]), ["error PM001", "error PM106", "error PM001"]);
}

#[test]
fn a_broken_document_silences_what_depends_on_it() {
    assert_eq!(codes(&[&service(BAD), &deployment("a", PODS), "kind: Deployment\nx: ["]), ["error PM001"]);
    assert_eq!(codes(&[&service(BAD), &deployment("a", PODS), "kind: Ingress\nx: ["]), ["error PM101", "error PM001"]);
    assert_eq!(codes(&[&service(BAD), "kind: Deployment\nx: ["]), ["error PM001"]);
}

#[test]
fn an_invalid_object_has_the_line_of_the_value() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: http\n";
    let found = findings(&[text]);
    let places: Vec<_> = found.iter().map(|it| (it.place.as_ref().map(|(_, line)| *line), it.object())).collect();
    assert_eq!(places, [(Some(6), "Service default/a".to_owned())]);
    let lower = service("{port: 80, protocol: tcp}");
    assert!(findings(&[&lower])[0].what.contains("\"tcp\""));
    let number = deployment("a", "ports: 80");
    assert!(findings(&[&number])[0].what.contains("ports is the number 80, and has to be a list"));
}

#[test]
fn lines_count_from_the_start_of_the_file() {
    let text = format!("# a comment\n\n{}{}", service(BAD), deployment("a", PODS));
    let found = findings(&[&text]);
    assert_eq!(found[0].place, Some(("0.yaml".into(), 7)));
    assert!(found[0].what.contains("Deployment a (0.yaml:9)"), "{}", found[0].what);
    let crlf = text.replace('\n', "\r\n");
    assert_eq!(findings(&[&crlf])[0].place, Some(("0.yaml".into(), 7)));
}

#[test]
fn block_scalars_anchors_and_other_files_are_read() {
    let config = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\ndata:\n  a: |\n    ---\n    kind: Service\n    x: [\n";
    assert_eq!(codes(&[config]), [""; 0]);
    let anchors = "x: &p {name: http, containerPort: 8080}\napiVersion: v1\nkind: Pod\n\
                   metadata: {name: a, labels: {app: web}}\nspec: {containers: [{name: a, ports: [*p]}]}\n";
    assert_eq!(codes(&[&service(BAD), anchors]), ["error PM101"]);
    assert_eq!(codes(&["replicas: 3\nimage: {tag: 1}\n", "", "# nothing\n---\n---\n", "- a\n- b\n"]), [""; 0]);
}

/// The main thread has a stack of 8 MiB. Builds without optimization use up to 40 KiB per level.
#[test]
fn depth_is_limited_and_size_is_not() {
    let check = || {
        for depth in [90, 1_000, 100_000] {
            for (open, close) in [("[", "]"), ("{a: ", "}")] {
                let text = format!("a: {}1{}\n", open.repeat(depth), close.repeat(depth));
                assert_eq!(codes(&[&text]).len(), usize::from(depth > 100), "{depth} {open}");
            }
        }
        let aliases = format!("a: &a 1\nb: [{}]\n", "*a, ".repeat(2_000));
        assert_eq!(codes(&[&aliases]), [""; 0]);
    };
    let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(check).expect("a thread");
    thread.join().expect("no failure");
}

#[test]
fn json_is_read_with_lines() {
    let one = "{\n\"apiVersion\": \"v1\",\n\t\"kind\": \"Service\", \"metadata\": {\"name\": \"a\"},\n\"spec\": \
               {\"ports\":\n[{\"port\": 80,\n\"targetPort\": \"80\"}]}}\n";
    let found = findings(&[&format!("{one}{one}")]);
    let lines: Vec<_> = found.iter().map(|it| it.place.as_ref().map(|(_, line)| *line)).collect();
    assert_eq!(lines, [Some(6), Some(12)]);
    let list = format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"ServiceList\", \"items\": [{}]}}",
        "{\"metadata\": {\"name\": \"a\"}, \"spec\": {\"ports\": [{\"port\": 80, \"targetPort\": \"80\"}]}}"
    );
    assert_eq!(codes(&[&list]), ["error PM106"]);
}

/// A long list is read on all processors, so its findings must not depend on their number.
#[test]
fn a_long_list_of_json_is_read_as_a_short_one() {
    let item = |number: usize| {
        let port = if number % 100 == 7 { r#""80""# } else { "80" };
        format!("{{\"metadata\": {{\"name\": \"s{number}\"}},\n\"spec\": {{\"ports\": [{{\"port\": {port}}}]}}}}")
    };
    let list = |kind: &str, numbers: std::ops::Range<usize>| {
        let items: Vec<String> = numbers.map(item).collect();
        format!("{{\"items\": [{}], \"apiVersion\": \"v1\", \"kind\": \"{kind}\"}}", items.join(",\n"))
    };
    let lines = |text: &str| -> Vec<_> {
        findings(&[text]).into_iter().map(|it| (it.rule.code, it.name, it.place.map(|(_, line)| line))).collect()
    };
    let long = lines(&list("ServiceList", 0..1_000));
    let short: Vec<String> = (0..10).map(|part| list("ServiceList", 100 * part..100 * (part + 1))).collect();
    assert_eq!(long, lines(&short.join("\n")));
    assert_eq!(long.iter().filter(|(code, ..)| *code == "PM001").count(), 10, "{long:?}");
    assert_eq!(lines(&format!("# a comment\n---\n{}", list("ServiceList", 0..1_000)))[0].2, long[0].2.map(|line| line + 2));
    assert_eq!(lines(&list("", 0..1_000)), []);
}

#[test]
fn a_template_that_is_not_rendered_is_named() {
    let found = findings(&["apiVersion: v1\nkind: Service\n{{- if .Values.x }}\nmetadata: {}\n{{- end }}\n"]);
    assert!(found[0].what.contains("template") && found[0].mend.contains("helm template"), "{found:?}");
}

#[test]
fn codes_are_ignored_by_annotations() {
    let annotated = |code: &str| {
        let annotations = format!("annotations: {{portmap.io/lint-ignore: \"{code}\"}}");
        service(BAD).replace("{name: web}", &format!("{{name: web, {annotations}}}"))
    };
    let pods = deployment("a", PODS);
    assert_eq!(codes(&[&annotated("PM101"), &pods]), [""; 0]);
    assert_eq!(codes(&[&annotated("PM103, pm101"), &pods]), [""; 0]);
    assert_eq!(codes(&[&annotated("PM103"), &pods]), ["error PM101"]);
    assert_eq!(codes(&[&annotated("PM101 PM999"), &pods]), ["warning PM002"]);
    assert_eq!(codes(&[&annotated(""), &pods]), ["error PM101"]);
}

#[test]
fn codes_are_ignored_by_annotations_of_the_pod_template() {
    let probe = format!("{PODS}, livenessProbe: {{httpGet: {{port: web}}}}");
    let pods = deployment("a", &probe);
    assert_eq!(codes(&[&pods]), ["error PM140"]);
    let ignoring =
        pods.replace("{labels: {app: web}}", "{labels: {app: web}, annotations: {portmap.io/lint-ignore: 'PM140,PM101'}}");
    assert_eq!(codes(&[&ignoring]), [""; 0]);
    // Conclusions about a Service are ignored if all of its pods ignore them.
    assert_eq!(codes(&[&service(BAD), &ignoring]), [""; 0]);
    assert_eq!(codes(&[&service(BAD), &ignoring, &deployment("b", PODS)]), ["error PM101"]);
}

#[test]
fn codes_are_ignored_by_settings() {
    let mut set = Set::new(Origin::Files, "default");
    set.read("a.yaml", &(service(BAD) + &deployment("a", PODS)));
    let ignored = catalog::by_code("pm101").into_iter().collect();
    assert_eq!(check(&set, &Settings { ignored, ..settings() }), []);
}

#[test]
fn other_kinds_with_the_same_name_are_ignored() {
    let knative = object("serving.knative.dev/v1", "Service", "a", "spec: {ports: 3}");
    assert_eq!(codes(&[&knative]), [""; 0]);
}
