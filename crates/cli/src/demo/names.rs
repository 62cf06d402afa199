//! Names in the demo: the name server at the resource, and how the client's programs ask.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use connlib_os::namespace::{Namespace, run_in};
use connlib_os::resolver::Resolvers;
use connlib_wire::dns::{Answer, Data, Name, Query, Rcode, RecordType, is_answer_to, respond};

use crate::exit::{Exit, Failure};
use crate::rig::plan::RESOURCE;

/// How long what the server says may be kept, in seconds.
const TTL: u32 = 60;

/// How long one question is waited for, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: usize = 5;

/// Answers for every name with the resource's address, by UDP and TCP, until this process ends.
///
/// # Errors
///
/// Exit 5: the address can't be listened on.
pub(super) fn serve(namespace: &Namespace, address: SocketAddr) -> Result<(), Failure> {
    let refused =
        |error: &io::Error| Failure::os(format_args!("listen on {address} for DNS"), error);
    let bind = || Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?));
    let (udp, tcp) = run_in(namespace, bind)?.map_err(|error| refused(&error))?;

    // The sockets stay in their namespace, wherever the threads are.
    let spawn = |work: Box<dyn FnOnce() + Send>| {
        let thread = thread::Builder::new().name("resource dns".into());
        thread
            .spawn(work)
            .map(drop)
            .map_err(|error| refused(&error))
    };
    spawn(Box::new(move || {
        let mut buffer = [0; 1_500];
        loop {
            // A program that is gone is no concern of ours.
            if let Ok((len, from)) = udp.recv_from(&mut buffer)
                && let Some(answer) = answer(buffer.get(..len).unwrap_or_default())
            {
                let _ = udp.send_to(&answer, from);
            }
        }
    }))?;
    spawn(Box::new(move || {
        for stream in tcp.incoming().flatten() {
            let _ = converse(stream);
        }
    }))
}

/// Asks for the address of `name` as programs on the client's machine would.
///
/// # Errors
///
/// Exit 1: there is no answer, or none with an address. Exit 5: the file or the namespace can't be read or entered.
pub(super) fn resolve(
    namespace: &Namespace,
    resolv_conf: &Path,
    name: &str,
) -> Result<IpAddr, Failure> {
    let contents = fs::read(resolv_conf)
        .map_err(|error| Failure::os(format_args!("read {}", resolv_conf.display()), &error))?;
    let failed = |why: &str| {
        let text = format!("can't resolve {name} on the client: {why}");
        Failure::new(Exit::Failed, text)
    };
    let server = Resolvers::parse(&contents).servers.into_iter().next();
    let server = server.ok_or_else(|| failed("its settings name no server"))?;
    let asked = Name::parse(name).map_err(|error| failed(&error.to_string()))?;
    let query = Query::new(&asked, RecordType::A);

    let answer = run_in(namespace, || ask(server, &query))?;
    let answer = answer.map_err(|error| failed(&error.to_string()))?;
    let address = answer.addresses().next().map(|(ip, _)| ip);

    address.ok_or_else(|| {
        failed(&format!(
            "{server} answers {} and no address",
            answer.rcode()
        ))
    })
}

fn ask(server: SocketAddr, query: &Query) -> io::Result<Answer> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let message = query.to_upstream(1, true);
    let mut buffer = [0; 1_500];
    for _ in 0..TRIES {
        socket.send(&message)?;
        let Ok(len) = socket.recv(&mut buffer) else {
            continue;
        };
        let received = buffer.get(..len).unwrap_or_default();
        if is_answer_to(&message, received)
            && let Ok(answer) = Answer::parse(received.to_vec())
        {
            return Ok(answer);
        }
    }

    Err(io::ErrorKind::TimedOut.into())
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let query = Query::parse(query).ok()?;
    let records = match query.record_type {
        RecordType::A => vec![Data::A(RESOURCE)],
        _ => Vec::new(),
    };

    Some(respond(&query, Rcode::NOERROR, TTL, &records, None))
}

fn converse(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    loop {
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        let mut query = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut query)?;
        let answer = answer(&query).ok_or(io::ErrorKind::InvalidData)?;
        let len = u16::try_from(answer.len()).unwrap_or(u16::MAX);
        stream.write_all(&[&len.to_be_bytes()[..], &answer].concat())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_answers_with_the_resource_and_nothing_else() {
        let ask = |record_type| {
            let query = Query::new(&Name::parse("wiki.corp.test").unwrap(), record_type);
            Answer::parse(answer(&query.to_upstream(7, true)).unwrap()).unwrap()
        };
        let addresses: Vec<_> = ask(RecordType::A).addresses().collect();
        assert_eq!(addresses, [(IpAddr::V4(RESOURCE), TTL)]);
        assert_eq!(ask(RecordType::AAAA).addresses().count(), 0);
        assert_eq!(answer(b"nonsense"), None);
    }
}
