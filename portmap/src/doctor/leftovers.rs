//! Rules of kube-proxy in the thread's network namespace. They serve Services beside portmap, and so hide a mistake.

use std::{fs, io::ErrorKind, process::Command};

use super::Check;

const NAME: &str = "kube-proxy";

/// The tools that list rules, each with its arguments. `iptables-save` lists the rules of the older interface, too.
const TOOLS: [(&str, &[&str]); 4] =
    [("nft", &["list", "chains"]), ("iptables-save", &[]), ("ip6tables-save", &[]), ("iptables-legacy-save", &[])];

/// The virtual servers of IPVS; missing if the kernel has not loaded IPVS.
const IPVS: &str = "/proc/net/ip_vs";

/// Checks for rules of kube-proxy: in nftables, iptables and IPVS. Rules are not checked if no tool is installed.
pub fn check() -> Check {
    let (mut found, mut asked, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (tool, arguments) in TOOLS {
        match Command::new(tool).args(arguments).output() {
            Ok(output) if output.status.success() => {
                asked.push(tool);
                let rules = rules(&String::from_utf8_lossy(&output.stdout));
                found.extend((rules > 0).then(|| format!("{rules} by {tool}")));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(_) | Err(_) => failed.push(tool),
        }
    }
    let servers = virtual_servers(&fs::read_to_string(IPVS).unwrap_or_default());
    found.extend((servers > 0).then(|| format!("{servers} virtual servers of IPVS")));
    conclude(&found, &asked, &failed)
}

fn conclude(found: &[String], asked: &[&str], failed: &[&str]) -> Check {
    if !found.is_empty() {
        return Check::note(
            NAME,
            format!(
                "rules of kube-proxy serve Services beside portmap, and hide mistakes: {}; once kube-proxy is gone, remove them: \
                 kube-proxy --cleanup",
                found.join(", ")
            ),
        );
    }
    match (asked, failed) {
        ([], []) => {
            Check::note(NAME, "not checked: neither nft nor iptables-save is installed here; IPVS has no virtual server")
        }
        ([], failed) => Check::note(NAME, format!("not checked: {} failed; IPVS has no virtual server", failed.join(" and "))),
        (asked, _) => Check::ok(NAME, format!("no rules of kube-proxy, as listed by {}", asked.join(", "))),
    }
}

/// The number of rules or chains of kube-proxy in a list of `iptables-save`, or of `nft list chains`.
fn rules(list: &str) -> usize {
    let mut count = 0;
    let mut is_own_table = false;
    for line in list.lines().map(str::trim) {
        if line.starts_with("table ") {
            is_own_table = line.contains(" kube-proxy ");
        }
        let is_chain = line.starts_with("chain KUBE-SERVICES ") || (is_own_table && line.starts_with("chain "));
        count += usize::from(is_chain || line.starts_with("-A KUBE-SERVICES "));
    }
    count
}

/// The number of virtual servers in the text of `/proc/net/ip_vs`.
fn virtual_servers(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("TCP ") || line.starts_with("UDP ") || line.starts_with("FWM ")).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CheckResult;

    #[test]
    fn rules_of_kube_proxy_are_counted() {
        let iptables =
            "*nat\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-X\n";
        assert_eq!(rules(iptables), 1);
        let nft = "table ip nat {\n\tchain KUBE-SERVICES {\n\t}\n\tchain OTHER {\n\t}\n}\n";
        assert_eq!(rules(nft), 1);
        let own = "table ip kube-proxy {\n\tchain services {\n\t}\n\tchain masquerading {\n\t}\n}\ntable ip x {\n\tchain a {\n\t}\n}\n";
        assert_eq!(rules(own), 2);
        assert_eq!(rules("*nat\n:KUBE-KUBELET-CANARY - [0:0]\n-A PREROUTING -j ACCEPT\n"), 0);
    }

    #[test]
    fn virtual_servers_are_counted() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port\n\
                    TCP  0A600001:01BB rr\n  -> C0000201:192B      Masq    1      0          0\n";
        assert_eq!(virtual_servers(text), 1);
    }

    #[test]
    fn missing_tools_are_reported() {
        let result = |found: &[String], asked: &[&str], failed: &[&str]| conclude(found, asked, failed).result;
        assert_eq!(result(&[], &["nft"], &["iptables-save"]), CheckResult::Ok);
        assert_eq!(result(&["1 by nft".to_owned()], &["nft"], &[]), CheckResult::Note);
        assert_eq!(conclude(&[], &[], &["nft"]).text, "not checked: nft failed; IPVS has no virtual server");
        assert!(conclude(&[], &[], &[]).text.starts_with("not checked: neither"));
    }
}
