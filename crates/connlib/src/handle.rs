//! What all roles' handles share: whether it is ready, why it ended, and how to ask something of it.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connlib_tunnel::client::{Interface, ResourceView};
use connlib_tunnel::why::Question;
use tokio::sync::{mpsc, watch};

use crate::error::{Error, Failed};
use crate::portal_view::PortalView;
use crate::watch::Watch;

/// How long a role may take to describe itself.
const REPORT_WITHIN: Duration = Duration::from_secs(2);

/// Something asked of a role's control plane.
#[derive(Debug)]
pub(crate) enum Request {
    /// Describe the state.
    Report(Answer),
    /// Tell what would become of a packet.
    Explain(Question, Answer),
    /// The network changed.
    Reset,
    /// The Internet resource is to be used, or no longer.
    Internet(bool),
    /// End, in order.
    Stop,
}

/// Where a report goes.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To a thread that waits.
    Thread(std::sync::mpsc::SyncSender<serde_json::Value>),
    /// To a task that waits.
    Task(tokio::sync::oneshot::Sender<serde_json::Value>),
}

impl Answer {
    pub(crate) fn give(self, report: serde_json::Value) {
        // Whoever asked may have left.
        match self {
            Self::Thread(sender) => drop(sender.try_send(report)),
            Self::Task(sender) => drop(sender.send(report)),
        }
    }
}

/// A running role, seen from outside. The last clone that is dropped stops it.
#[derive(Clone)]
pub(crate) struct Handle {
    /// As many as the embedding program likes: each is small, and one that was lost could not be told from one that was met.
    requests: mpsc::UnboundedSender<Request>,
    resources: watch::Receiver<Vec<ResourceView>>,
    interface: watch::Receiver<Option<Interface>>,
    portal: watch::Receiver<PortalView>,
    progress: Progress,
}

/// The other end of a [`Handle`].
pub(crate) struct Control {
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
    pub(crate) watched: Watched,
    pub(crate) progress: Progress,
}

/// What a client lets be watched, and a gateway as far as it has the same.
pub(crate) struct Watched {
    /// What it can reach.
    pub(crate) resources: watch::Sender<Vec<ResourceView>>,
    /// What its device looks like, once it does.
    pub(crate) interface: watch::Sender<Option<Interface>>,
    /// How things stand with its portal.
    pub(crate) portal: watch::Sender<PortalView>,
}

/// How far a role has come.
#[derive(Clone, Default)]
pub(crate) struct Progress {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_ready: bool,
    ended: Option<Result<(), Error>>,
}

pub(crate) fn pair() -> (Handle, Control) {
    let (sender, requests) = mpsc::unbounded_channel();
    let (tell_resources, resources) = watch::channel(Vec::new());
    let (tell_interface, interface) = watch::channel(None);
    let (tell_portal, portal) = watch::channel(PortalView::new());
    let progress = Progress::default();
    let handle = Handle {
        requests: sender,
        resources,
        interface,
        portal,
        progress: progress.clone(),
    };
    let control = Control {
        requests,
        watched: Watched {
            resources: tell_resources,
            interface: tell_interface,
            portal: tell_portal,
        },
        progress,
    };

    (handle, control)
}

impl Handle {
    /// Waits until the role is ready.
    pub(crate) fn wait_ready(&self) -> Result<(), Error> {
        let state = self
            .progress
            .wait_while(|state| !state.is_ready && state.ended.is_none());
        match &state.ended {
            Some(ended) if !state.is_ready => ended.clone(),
            Some(_) | None => Ok(()),
        }
    }

    /// Waits until the role has ended.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        let state = self.progress.wait_while(|state| state.ended.is_none());

        state.ended.clone().unwrap_or(Ok(()))
    }

    /// Asks the role to end; it does so in its own time.
    pub(crate) fn stop(&self) {
        self.ask(Request::Stop);
    }

    pub(crate) fn reset(&self) {
        self.ask(Request::Reset);
    }

    pub(crate) fn resources(&self) -> Watch<Vec<ResourceView>> {
        Watch::new(self.resources.clone())
    }

    pub(crate) fn interface(&self) -> Watch<Option<Interface>> {
        Watch::new(self.interface.clone())
    }

    pub(crate) fn portal(&self) -> Watch<PortalView> {
        Watch::new(self.portal.clone())
    }

    pub(crate) fn want_internet(&self, is_wanted: bool) {
        self.ask(Request::Internet(is_wanted));
    }

    /// Asks the role to describe itself; `None` if it has ended.
    pub(crate) fn report(&self) -> Option<serde_json::Value> {
        let (sender, report) = std::sync::mpsc::sync_channel(1);
        self.ask(Request::Report(Answer::Thread(sender)));

        report.recv_timeout(REPORT_WITHIN).ok()
    }

    /// Asks what would become of a packet; `None` if the role has ended.
    pub(crate) fn explain(&self, question: Question) -> Option<serde_json::Value> {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        self.ask(Request::Explain(question, Answer::Thread(sender)));

        answer.recv_timeout(REPORT_WITHIN).ok()
    }

    fn ask(&self, request: Request) {
        if self.requests.send(request).is_err() {
            tracing::debug!("The role has ended; nobody takes this request");
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.progress.lock();
        f.debug_struct("Handle")
            .field("is_ready", &state.is_ready)
            .field("has_ended", &state.ended.is_some())
            .finish()
    }
}

impl Progress {
    pub(crate) fn set_ready(&self) {
        self.lock().is_ready = true;
        self.shared.changed.notify_all();
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.lock().is_ready
    }

    /// Runs the role's control plane on a thread of its own; however that ends, those who wait are told.
    pub(crate) fn run_on_thread(
        self,
        name: &str,
        work: impl FnOnce() -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let crash = EndsCrashed(self);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let result = work();
                crash.0.end(result);
            })
            .map_err(Error::resource("a thread"))?;

        Ok(())
    }

    fn end(&self, result: Result<(), Error>) {
        self.lock().ended.get_or_insert(result);
        self.shared.changed.notify_all();
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        self.shared
            .changed
            .wait_while(self.lock(), |state| condition(state))
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that unwinds still says that it ended.
struct EndsCrashed(Progress);

impl Drop for EndsCrashed {
    fn drop(&mut self) {
        self.0.end(Err(Failed::Crashed.into()));
    }
}
