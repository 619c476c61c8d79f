//! The Helm chart in `deploy/chart/portmap`, rendered by the real Helm, and its alerts and dashboard.
//!
//! - `tests/chart/cases/*/values.yaml` are rendered to `rendered.yaml` beside them. `UPDATE_CASES=1` rewrites these.
//! - `deploy/portmap.yaml` is the chart with default values, and the chart's `README.md` has a table of `values.yaml`.
//!   `UPDATE_DOCS=1` rewrites both.
//!
//! Needs: control plane, promtool.

mod expression;
mod helm;
mod installation;
mod monitoring;
mod objects;
mod plain;
mod render;
mod rules;
mod values;
