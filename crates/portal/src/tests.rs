//! What the tests of all modules start from.

use connlib_wire::id::{ClientId, GatewayId, ResourceId};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use uuid::Uuid;

use crate::model::{
    Account, Client, Device, Directory, Edit, Gateway, PskBase, TokenId, TokenKind,
};
use crate::policy::{Plan, plan};
use crate::token;
use crate::topology::Topology;

/// A directory, and the ids that are still free.
pub(crate) struct World {
    pub(crate) directory: Directory,
    last_id: u128,
    random: StdRng,
}

impl World {
    pub(crate) fn new(file: &str) -> Self {
        let mut world = Self {
            directory: Directory::new(account()),
            last_id: 1_000,
            random: StdRng::from_seed([7; 32]),
        };
        world.apply(file);
        world
    }

    pub(crate) fn apply(&mut self, file: &str) -> Plan {
        self.apply_topology(&Topology::parse(file, "test.toml").unwrap())
    }

    pub(crate) fn apply_topology(&mut self, topology: &Topology) -> Plan {
        let last_id = &mut self.last_id;
        let plan = plan(&self.directory, topology, &mut || {
            *last_id += 1;
            ids(*last_id)
        });
        for edit in &plan.edits {
            self.directory.apply(edit);
        }
        plan
    }

    pub(crate) fn resource(&self, name: &str) -> ResourceId {
        let mut resources = self.directory.resources().values();
        resources.find(|resource| resource.name == name).unwrap().id
    }

    pub(crate) fn put_client(&mut self, actor: &str, id: ClientId) -> TokenId {
        let actor = self.directory.actor_named(actor).unwrap().id;
        let device = self.device();
        let client = Client {
            id,
            actor,
            verified: false,
            device,
        };
        self.directory.apply(&Edit::PutClient(client));

        let (token, _) = token::mint(&mut self.random, TokenKind::Client(actor), 0, None);
        let id = token.id;
        self.directory.apply(&Edit::PutToken(token));
        id
    }

    pub(crate) fn put_gateway(&mut self, site: &str, id: GatewayId) {
        let site = self.directory.site_named(site).unwrap().id;
        let device = self.device();
        let gateway = Gateway { id, site, device };
        self.directory.apply(&Edit::PutGateway(gateway));
    }

    fn device(&mut self) -> Device {
        self.last_id += 1;
        Device {
            external_id: self.last_id.to_string(),
            name: "device".to_owned(),
            addresses: self.directory.free_addresses().unwrap(),
            psk_base: PskBase::new([9; 32]),
        }
    }
}

pub(crate) fn ids(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub(crate) fn account() -> Account {
    Account {
        id: "a0a0a0a0-0000-4000-8000-000000000001".parse().unwrap(),
        slug: "test".to_owned(),
        ingest_key: "portal-test-key".into(),
    }
}
