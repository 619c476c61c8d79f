//! The programs' walk from a destination to a backend, run by itself with `BPF_PROG_TEST_RUN`: without a socket around it.

use anyhow::Result;
use clap::Args;
use portmap::datapath::lookup::Lookup;
use portmap::table::Family;
use portmap_common::{Address, Backend, Frontend, PROBES, Probe, TCP, V4, V6};

use super::cluster::{Cluster, PORT, service_address};
use super::figures::Figures;
use super::machine::Machine;
use super::report::{Row, Section};
use super::stages::{Scope, Stages};
use super::tables::Tables;
use super::{Report, Size, progress};
use crate::connect_bench::Dice;
use crate::listen::Protocol;
use crate::world::World;
