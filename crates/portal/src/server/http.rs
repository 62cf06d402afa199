//! The paths that peers ask for (portal-protocol.md §1.1, §12).

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::header::{RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::routing::get;
use connlib_wire::portal::Generation;
use connlib_wire::portal::phoenix::Framing;
use connlib_wire::secret::Secret;
use serde::Deserialize;
use tokio::sync::watch;

use super::accept::{Incoming, Peer};
use super::core::{CoreHandle, Rejected};
use super::forwarded::TrustedProxies;
use super::problem::problem;
use super::socket;
use crate::state::{Connect, Role};

/// The largest message that a peer may send, in bytes.
const MAX_MESSAGE: usize = 1024 * 1024;

/// How much of what a peer says is read at once. It is kept for each socket, and most that is said is shorter.
const READ_BUFFER: usize = 4 * 1024;

/// The header that a token comes in (portal-protocol.md §1.3).
const AUTHORIZATION: &str = "x-authorization";

type Answer = Response<Body>;

/// What all requests need.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) core: CoreHandle,
    pub(super) proxies: Arc<TrustedProxies>,
}

/// What a peer says in the query.
#[derive(Deserialize)]
struct Parameters {
    token: Option<Secret>,
    external_id: Option<String>,
    name: Option<String>,
    public_key: Option<String>,
    ipv4: Option<String>,
    ipv6: Option<String>,
    port: Option<String>,
    /// The version of the framing (portal-protocol.md §2).
    vsn: Option<String>,
}

/// Serves connections until `stop` says so.
pub(super) async fn serve(incoming: Incoming, shared: Shared, mut stop: watch::Receiver<bool>) {
    let stopped = async move {
        // A sender that is gone stops us too.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let app = router(shared).into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(incoming, app)
        .with_graceful_shutdown(stopped)
        .await;

    if let Err(error) = served {
        tracing::error!(%error, "Can't serve any longer");
    }
}

fn router(shared: Shared) -> Router {
    let peers =
        |role: Role, generation: Generation| {
            get(
            move |state: State<Shared>,
                  peer: ConnectInfo<Peer>,
                  headers: HeaderMap,
                  parameters: Result<Query<Parameters>, QueryRejection>,
                  websocket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>| {
                open((role, generation), state.0, peer.0, headers, parameters, websocket)
            },
        )
        };

    Router::new()
        .route("/client/websocket", peers(Role::Client, Generation::V1))
        .route("/client/v2/websocket", peers(Role::Client, Generation::V2))
        .route("/gateway/websocket", peers(Role::Gateway, Generation::V1))
        .route(
            "/gateway/v2/websocket",
            peers(Role::Gateway, Generation::V2),
        )
        .route("/relay/websocket", peers(Role::Relay, Generation::V2))
        .route("/healthz", get(async || "ok\n"))
        .fallback(async || {
            let detail = "There is nothing at this path";
            problem(StatusCode::NOT_FOUND, "not_found", detail)
        })
        .with_state(shared)
}

async fn open(
    (role, generation): (Role, Generation),
    Shared { core, proxies }: Shared,
    peer: Peer,
    headers: HeaderMap,
    parameters: Result<Query<Parameters>, QueryRejection>,
    websocket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    let Ok(Query(parameters)) = parameters else {
        let detail = "The query is not a list of different names with values";
        return problem(StatusCode::BAD_REQUEST, "invalid_connect_params", detail);
    };
    let Some(framing) = framing(parameters.vsn.as_deref()) else {
        let detail = "The parameter `vsn` is neither 1.0.0 nor 2.0.0";
        return problem(StatusCode::BAD_REQUEST, "invalid_connect_params", detail);
    };
    let connect = Connect {
        role,
        generation,
        framing,
        token: bearer(&headers).or(parameters.token),
        external_id: parameters.external_id,
        name: parameters.name,
        public_key: parameters.public_key,
        ipv4: parameters.ipv4,
        ipv6: parameters.ipv6,
        port: parameters.port,
        user_agent: agent(&headers),
        remote: Some(proxies.origin(peer.address.ip(), &headers)),
    };
    let websocket = match websocket {
        Ok(websocket) => websocket,
        // Nobody is replaced by who doesn't even ask for a WebSocket.
        Err(rejection) => {
            return match core.check(connect).await {
                Ok(()) => problem(
                    rejection.status(),
                    "not_a_websocket",
                    &rejection.body_text(),
                ),
                Err(rejected) => rejection_of(&rejected),
            };
        }
    };
    let opened = match core.connect(connect).await {
        Ok(opened) => opened,
        Err(rejected) => return rejection_of(&rejected),
    };

    let (socket, core_for_failure) = (opened.socket, core.clone());
    websocket
        .read_buffer_size(READ_BUFFER)
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .on_failed_upgrade(move |error| {
            tracing::debug!(?socket, %error, "The peer left before it was connected");
            tokio::spawn(async move { core_for_failure.disconnected(socket).await });
        })
        .on_upgrade(move |websocket| {
            peer.upgrade.done();
            socket::serve(websocket, opened, core)
        })
}

fn framing(version: Option<&str>) -> Option<Framing> {
    match version {
        None | Some("1.0.0") => Some(Framing::Object),
        Some("2.0.0") => Some(Framing::Array),
        Some(_) => None,
    }
}

fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;

    value.strip_prefix("Bearer ").map(Secret::from)
}

fn agent(headers: &HeaderMap) -> Option<String> {
    let agent = headers.get(USER_AGENT)?;

    agent.to_str().ok().map(str::to_owned)
}

fn rejection_of(rejected: &Rejected) -> Answer {
    let (status, code) = match rejected {
        Rejected::Refused(refused) => (refused.status(), refused.code()),
        Rejected::Unavailable => (503, "unavailable"),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);

    let mut response = problem(status, code, &rejected.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let one_second = HeaderValue::from_static("1");
        response.headers_mut().insert(RETRY_AFTER, one_second);
    }
    response
}
