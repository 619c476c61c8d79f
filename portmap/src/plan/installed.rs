//! The planner's model of FRONTENDS and SERVICES: the frontends in the maps, each with its service entry.

use portmap_common::Service;

use crate::{
    collections::HashMap,
    model::{AddressKind, Frontend, PerFamily},
};

/// The planner's model of the frontends in the maps, and of their service entries.
#[derive(Debug, Default)]
pub struct InstalledFrontends {
    /// The service number of each frontend.
    numbers: HashMap<Frontend, u32>,
    /// The service entry of each number; `None` for unused numbers.
    services: Vec<Option<Service>>,
    of_family: PerFamily<u32>,
}

/// Equal models have the same frontends with the same numbers and entries.
impl PartialEq for InstalledFrontends {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.iter().all(|(frontend, number, service)| other.get(frontend) == Some((number, *service)))
    }
}

impl InstalledFrontends {
    /// The number of frontends.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The number of frontends of each family.
    pub fn of_family(&self) -> PerFamily<u32> {
        self.of_family
    }

    /// The service number and the service entry of a frontend; `None` if the frontend is not in the maps.
    pub fn get(&self, frontend: &Frontend) -> Option<(u32, Service)> {
        let number = *self.numbers.get(frontend)?;
        self.service(number).map(|service| (number, *service))
    }

    /// All frontends with their service numbers and entries, in any order.
    pub fn iter(&self) -> impl Iterator<Item = (&Frontend, u32, &Service)> {
        self.numbers.iter().filter_map(|(frontend, number)| Some((frontend, *number, self.service(*number)?)))
    }

    /// The frontends that are node ports, in any order.
    pub fn node_ports(&self) -> impl Iterator<Item = &Frontend> {
        let node_ports = self.iter().filter(|(.., service)| service.kind == AddressKind::NodePort as u8);
        node_ports.map(|(frontend, ..)| frontend)
    }

    /// Sets the service number and entry of a frontend.
    pub fn insert(&mut self, frontend: Frontend, number: u32, service: Service) {
        self.remove(&frontend);
        let index = number as usize;
        if self.services.len() <= index {
            self.services.resize(index + 1, None);
        }
        if let Some(entry) = self.services.get_mut(index) {
            *entry = Some(service);
        }
        self.numbers.insert(frontend, number);
        *self.of_family.get_mut(frontend.family()) += 1;
    }

    /// Removes a frontend, and returns its service number and entry; `None` if the frontend is not in the maps.
    pub fn remove(&mut self, frontend: &Frontend) -> Option<(u32, Service)> {
        let number = self.numbers.remove(frontend)?;
        let service = self.services.get_mut(number as usize)?.take()?;
        *self.of_family.get_mut(frontend.family()) -= 1;
        Some((number, service))
    }

    fn service(&self, number: u32) -> Option<&Service> {
        self.services.get(number as usize)?.as_ref()
    }
}
