//! The names and help texts of the metrics.

use prometheus_client::registry::Registry;

use super::Metrics;

impl Metrics {
    /// Registers kube-proxy's metrics.
    pub(super) fn register_of_kube_proxy(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("kubeproxy");
        self.register_syncs(registry);
        self.register_changes(registry);
        registry.register("proxy_healthz", "Answers of /healthz", self.healthz.clone());
        registry.register("proxy_livez", "Answers of /livez", self.livez.clone());
    }

    fn register_syncs(&self, registry: &mut Registry) {
        registry.register("sync_proxy_rules_duration_seconds", "How long a sync took", self.sync_duration.clone());
        registry.register(
            "sync_full_proxy_rules_duration_seconds",
            "How long a full sync took",
            self.full_sync_duration.clone(),
        );
        registry.register(
            "sync_partial_proxy_rules_duration_seconds",
            "How long a sync of what changed took",
            self.partial_sync_duration.clone(),
        );
        registry.register(
            "network_programming_duration_seconds",
            "From the change of a pod or Service to the tables",
            self.programming.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "When tables and objects last agreed",
            self.last_sync.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "When a change last came in",
            self.last_queued.clone(),
        );
        registry.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Service ports that a policy keeps on this node, where there is no endpoint while there are some elsewhere",
            self.lacking.clone(),
        );
    }

    fn register_changes(&self, registry: &mut Registry) {
        registry.register("sync_proxy_rules_service_changes", "Changes of Services", self.service_changes.clone());
        registry.register("sync_proxy_rules_endpoint_changes", "Changes of EndpointSlices", self.endpoint_changes.clone());
        registry.register(
            "sync_proxy_rules_service_changes_pending",
            "Changes of Services that are not in the tables",
            self.pending_services.clone(),
        );
        registry.register(
            "sync_proxy_rules_endpoint_changes_pending",
            "Changes of EndpointSlices that are not in the tables",
            self.pending_endpoints.clone(),
        );
    }

    /// Registers portmap's own metrics.
    pub(super) fn register_own(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("portmap");
        registry.register("map_entries", "Entries of a BPF map in use", self.entries.clone());
        registry.register("map_capacity", "Entries that a BPF map has room for", self.capacity.clone());
        registry.register("frontends_left_out", "Frontends that found no room in the tables", self.left_out.clone());
        registry.register(
            "entries_left_out",
            "Endpoints, source ranges and ClusterIPs that found no room in their maps",
            self.without_room.clone(),
        );
        registry.register(
            "namespaces_left_out",
            "Network namespaces that could not be looked into, or found no room, while there are source ranges",
            self.namespaces_left_out.clone(),
        );
        registry.register("contested_addresses", "Addresses and ports that several Services claim", self.contested.clone());
        registry.register(
            "sync_failures",
            "Times that the tables could not be written, and were read and planned anew",
            self.failures.clone(),
        );
        registry.register("repairs", "Writes that undid what somebody else had changed in the tables", self.repairs.clone());
        registry.register(
            "watch_failing",
            "1 while nothing is heard of a kind of objects, and the tables grow old",
            self.failing_watches.clone(),
        );
        registry.register("calls", "Calls to Services by outcome, since the maps were created", self.calls.clone());
        registry.register("events", "What happened that is no service's, since the maps were created", self.events.clone());
    }
}
