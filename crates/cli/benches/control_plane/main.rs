//! Loads a portal: thousands of clients, requests, a revocation, a restart. `cargo bench -p connlib-cli --bench control_plane`
//! prints what was seen beside its goal, and takes about three minutes; `CLIENTS` says how many connect [default: 10000].
//!
//! The portal is a process of its own. The peers are another one: each has a connection over the loopback device, and says
//! what a client or gateway says, but for tunnels. Both want two descriptors more than there are clients.
#![allow(clippy::print_stdout, reason = "figures are printed")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a figure that can't be taken ends the run"
)]
#![expect(clippy::disallowed_methods, reason = "time is what is measured")]

mod client;
mod gateway;
mod portal;
mod socket;
mod stats;

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tokio::time::{interval, sleep};

use client::Crowd;
use gateway::Gateway;
use portal::Portal;
use stats::{Row, millis, percentile};

/// Clients of the revocation, each of which holds a grant.
const HOLDERS: usize = 1_000;

/// Requests each second, and for how long.
const REQUEST_RATE: u32 = 200;
const REQUESTS_FOR: Duration = Duration::from_secs(10);

/// How long the portal is watched while its clients say nothing but heartbeats.
const IDLE_FOR: Duration = Duration::from_secs(30);

fn main() {
    let clients = std::env::var("CLIENTS").map_or(10_000, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let rows = LocalSet::new().block_on(&runtime, load(clients));

    println!("\n{:<52} {:>16}  goal", "what", "seen");
    for row in rows {
        println!("{:<52} {:>16}  {}", row.what, row.seen, row.goal);
    }
}

async fn load(clients: usize) -> Vec<Row> {
    let mut portal = Portal::start();
    let mut rows = Vec::new();
    println!("portal at rest: {:.1} MB", portal.rss_mb());

    let gateway = Gateway::join(&portal).await;
    let crowd = Rc::new(Crowd::new(&portal, clients.max(HOLDERS)));
    crowd.grow_to(HOLDERS).await;
    rows.push(requests(&crowd).await);
    rows.extend(revocation(&portal, &crowd, &gateway).await);

    crowd.grow_to(clients).await;
    let joins = crowd.take_joins();
    rows.push(Row::new(
        format!("{clients} clients: join, p99"),
        millis(percentile(&joins, 0.99)),
        "100 ms",
    ));
    println!("join: p50 {}", millis(percentile(&joins, 0.5)));
    rows.extend(idle(&portal).await);
    rows.extend(restart(&mut portal, &crowd).await);

    rows
}

/// From a client's request until its grant, with a gateway that acknowledges at once: the portal's share and both peers' own.
async fn requests(crowd: &Crowd) -> Row {
    // Everybody holds a grant first.
    for number in 0..HOLDERS {
        crowd.ask(number);
        if number % 50 == 0 {
            sleep(Duration::from_millis(250)).await;
        }
    }
    crowd.until(|crowd| crowd.answered() == HOLDERS).await;
    crowd.take_answers();

    let count = REQUEST_RATE * u32::try_from(REQUESTS_FOR.as_secs()).unwrap();
    let mut ticks = interval(Duration::from_secs(1) / REQUEST_RATE);
    for number in 0..count {
        ticks.tick().await;
        crowd.ask(number as usize * 7 % HOLDERS);
    }
    let count = count as usize;
    crowd.until(|crowd| crowd.answered() == count).await;
    let answers = crowd.take_answers();
    println!(
        "request to grant: p50 {}",
        millis(percentile(&answers, 0.5))
    );

    Row::new(
        format!("request to grant at {REQUEST_RATE}/s, p99"),
        millis(percentile(&answers, 0.99)),
        "5 ms",
    )
}

/// From the start of `portal apply` without the policy until each client and the gateway know.
async fn revocation(portal: &Portal, crowd: &Crowd, gateway: &Gateway) -> [Row; 2] {
    let began = Instant::now();
    let applied = portal.apply(portal::WITHOUT_ACCESS);
    crowd.until(|crowd| crowd.revoked() == HOLDERS).await;
    gateway.until_rejected(HOLDERS).await;
    applied.await.unwrap();
    let after =
        |at: Vec<Instant>| -> Vec<Duration> { at.into_iter().map(|at| at - began).collect() };

    let at_clients = after(crowd.take_revoked());
    let at_gateway = after(gateway.take_rejected());
    portal.apply(portal::TOPOLOGY).await.unwrap();
    [
        Row::new(
            format!("{HOLDERS} clients: revoked at the client, p99"),
            millis(percentile(&at_clients, 0.99)),
            "1 s",
        ),
        Row::new(
            format!("{HOLDERS} clients: revoked at the gateway, p99"),
            millis(percentile(&at_gateway, 0.99)),
            "1 s",
        ),
    ]
}

async fn idle(portal: &Portal) -> [Row; 2] {
    // What joining left behind is gone.
    sleep(Duration::from_secs(5)).await;
    let (busy, began) = (portal.cpu(), Instant::now());
    sleep(IDLE_FOR).await;
    let share = (portal.cpu() - busy).as_secs_f64() / began.elapsed().as_secs_f64();

    [
        Row::new(
            "connected and idle: memory".into(),
            format!("{:.0} MB", portal.rss_mb()),
            "600 MB",
        ),
        Row::new(
            "connected and idle: of a core".into(),
            format!("{:.1} %", share * 100.0),
            "10 %",
        ),
    ]
}

async fn restart(portal: &mut Portal, crowd: &Crowd) -> [Row; 2] {
    let all = crowd.joined();
    crowd.take_attempts();
    let began = Instant::now();
    portal.restart().await;
    crowd.until(|crowd| crowd.joined() == all).await;
    let took = began.elapsed();

    let mut per_second = vec![0_usize; took.as_secs() as usize + 1];
    let attempts = crowd.take_attempts();
    for at in &attempts {
        if let Some(count) = per_second.get_mut((*at - began).as_secs() as usize) {
            *count += 1;
        }
    }
    println!("attempts in each second after the end: {per_second:?}");
    [
        Row::new(
            "restart: all are back after".into(),
            format!("{:.1} s", took.as_secs_f64()),
            "60 s",
        ),
        Row::new(
            "restart: attempts of each client".into(),
            format!("{:.2}", attempts.len() as f64 / all as f64),
            "no herd",
        ),
    ]
}
