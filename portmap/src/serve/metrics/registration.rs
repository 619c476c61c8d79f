//! The names and help texts of the metrics.

use prometheus_client::registry::Registry;

use super::Metrics;

impl Metrics {
    /// Registers the metrics that have kube-proxy's names, under the prefix `kubeproxy_`.
    pub(super) fn register_of_kube_proxy(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("kubeproxy");
        self.register_syncs(registry);
        self.register_changes(registry);
        registry.register("proxy_healthz", "Answers of /healthz by status code", self.healthz.clone());
        registry.register("proxy_livez", "Answers of /livez by status code", self.livez.clone());
    }

    fn register_syncs(&self, registry: &mut Registry) {
        registry.register("sync_proxy_rules_duration_seconds", "Duration of a sync", self.sync_duration.clone());
        registry.register(
            "sync_full_proxy_rules_duration_seconds",
            "Duration of a sync of all entries",
            self.full_sync_duration.clone(),
        );
        registry.register(
            "sync_partial_proxy_rules_duration_seconds",
            "Duration of a sync of changed entries",
            self.partial_sync_duration.clone(),
        );
        registry.register(
            "network_programming_duration_seconds",
            "Time from the change of a pod or Service to the write of the tables",
            self.programming.clone(),
        );
        registry.register("sync_proxy_rules_last_timestamp_seconds", "Time of the last sync", self.last_sync.clone());
        registry.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "Time of the last received change",
            self.last_queued.clone(),
        );
        registry.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Service ports whose traffic policy requires a local endpoint, and that have endpoints only on other nodes",
            self.lacking.clone(),
        );
    }

    fn register_changes(&self, registry: &mut Registry) {
        registry.register("sync_proxy_rules_service_changes", "Changes of Services", self.service_changes.clone());
        registry.register("sync_proxy_rules_endpoint_changes", "Changes of EndpointSlices", self.endpoint_changes.clone());
        registry.register(
            "sync_proxy_rules_service_changes_pending",
            "Changes of Services that are not in the tables yet",
            self.pending_services.clone(),
        );
        registry.register(
            "sync_proxy_rules_endpoint_changes_pending",
            "Changes of EndpointSlices that are not in the tables yet",
            self.pending_endpoints.clone(),
        );
    }

    /// Registers portmap's own metrics, under the prefix `portmap_`.
    pub(super) fn register_own(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("portmap");
        registry.register("map_entries", "Used entries of a BPF map", self.entries.clone());
        registry.register("map_capacity", "Capacity of a BPF map in entries", self.capacity.clone());
        registry.register("frontends_left_out", "Frontends that are left out because a map is full", self.left_out.clone());
        registry.register(
            "entries_left_out",
            "Endpoints, source ranges and ClusterIPs that are left out because their map is full",
            self.without_room.clone(),
        );
        registry.register(
            "namespaces_left_out",
            "Network namespaces that source ranges do not know: they could not be opened, or a map is full",
            self.namespaces_left_out.clone(),
        );
        registry.register("contested_addresses", "Addresses and ports that several Services claim", self.contested.clone());
        registry.register(
            "devices",
            "Network devices at which packets of clients outside the node are translated",
            self.devices.clone(),
        );
        registry.register(
            "devices_failed",
            "Those of the devices to which the programs could not be attached",
            self.devices_failed.clone(),
        );
        registry.register(
            "backends_not_listening",
            "Backends on this node on whose targetPort no program listens",
            self.not_listening.clone(),
        );
        registry.register(
            "sync_failures",
            "Failed writes of the tables, after which the tables are read and planned again",
            self.failures.clone(),
        );
        registry.register("repairs", "Writes that undid changes of the tables by other programs", self.repairs.clone());
        registry.register(
            "watch_failing",
            "1 while the watch of a kind of objects fails, and its changes do not reach the tables",
            self.failing_watches.clone(),
        );
        registry.register("calls", "Calls to Services by outcome, since the maps were created", self.calls.clone());
        registry.register(
            "outside_flows",
            "Flows of clients outside the node by outcome, since the maps were created",
            self.outside.clone(),
        );
        registry.register(
            "events",
            "Events that belong to no single Service, since the maps were created",
            self.events.clone(),
        );
        self.flows.register(registry);
    }
}
