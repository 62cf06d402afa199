//! The one gateway: it acknowledges each grant at once, and notes what is taken back.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use connlib_wire::portal::gateway::{AuthorizationRef, CreateAuthorization, TOPIC, ToPortal};
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::portal::Portal;
use crate::socket::Socket;

pub(crate) struct Gateway {
    rejected: Rc<RefCell<Vec<Instant>>>,
}

impl Gateway {
    pub(crate) async fn join(portal: &Portal) -> Self {
        let (contact, token) = (portal.contact(), portal.token(&["--gateway", "hq"]));
        let mut socket = Socket::open(&contact, TOPIC, &token, "gw").await.unwrap();
        let init = socket.hear().await.unwrap();
        assert_eq!(init.event, "init");

        let rejected = Rc::new(RefCell::default());
        spawn_local(live(contact, token, socket, Rc::clone(&rejected)));
        Self { rejected }
    }

    pub(crate) async fn until_rejected(&self, count: usize) {
        while self.rejected.borrow().len() < count {
            sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn take_rejected(&self) -> Vec<Instant> {
        self.rejected.take()
    }
}

async fn live(
    contact: crate::portal::Contact,
    token: String,
    mut socket: Socket,
    rejected: Rc<RefCell<Vec<Instant>>>,
) {
    loop {
        serve(&mut socket, &rejected).await;
        socket = loop {
            sleep(Duration::from_millis(500)).await;
            if let Some(socket) = Socket::open(&contact, TOPIC, &token, "gw").await {
                break socket;
            }
        };
    }
}

async fn serve(socket: &mut Socket, rejected: &RefCell<Vec<Instant>>) {
    while let Some(heard) = socket.hear().await {
        match heard.event.as_str() {
            "create_authorization" => {
                let request: CreateAuthorization =
                    serde_json::from_str(heard.payload.get()).unwrap();
                let answer = ToPortal::AuthorizationCreated(AuthorizationRef {
                    reference: request.reference,
                });
                if socket.say(answer.event(), &answer).await.is_none() {
                    return;
                }
            }
            "reject_access" => rejected.borrow_mut().push(Instant::now()),
            _ => {}
        }
    }
}
