//! Methods that are written in Python, and the class that Python makes a front with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use crate::answer::{Answer, Identify, Kind, Method, Origin, Pair, Peer, Question, Refusals, Taker, code};
use crate::framing;
use crate::limits::{Limits, Load};
use crate::listeners::Listener;
use crate::metadata;
use crate::metrics::{MethodMetrics, Metrics};
use crate::pool::Pool;
use crate::server::{Route, Server, Shared};
use crate::tls::{Files, Reloading};

/// What Python is called with besides methods.
struct Seam {
    /// `Metadata`: made of a deadline and an origin.
    metadata: Py<PyAny>,
    /// `NO_DEADLINE`.
    no_deadline: Py<PyAny>,
    /// Takes the name of a method and what it raised.
    failed: Py<PyAny>,
    /// One moment on two clocks: Rust's, and `time.monotonic()`.
    moment: (Instant, f64),
}

impl Seam {
    fn deadline(&self, deadline: Instant) -> f64 {
        let (then, monotonic) = self.moment;
        match deadline.checked_duration_since(then) {
            Some(later) => monotonic + later.as_secs_f64(),
            None => monotonic,
        }
    }
}

/// Who called, as Python sees it.
struct Caller {
    origin: Py<PyAny>,
    /// `Metadata` of a call without a deadline: most that have none share it.
    metadata: Py<PyAny>,
}

struct PythonIdentify {
    seam: Arc<Seam>,
    /// Takes an address, a user agent and names, or None; gives an `Origin` or None.
    make: Py<PyAny>,
}

impl Identify for PythonIdentify {
    fn origin(&self, peer: &Peer, user_agent: &str) -> Option<Origin> {
        Python::attach(|py| {
            let made = self
                .make
                .bind(py)
                .call1((&peer.address, user_agent, peer.names.clone()))
                .and_then(|origin| {
                    if origin.is_none() {
                        return Ok(None);
                    }
                    let metadata = self.seam.metadata.bind(py).call1((&self.seam.no_deadline, &origin))?;
                    Ok(Some(Caller {
                        origin: origin.unbind(),
                        metadata: metadata.unbind(),
                    }))
                });
            match made {
                Ok(caller) => caller.map(|caller| Arc::new(caller) as Origin),
                Err(error) => {
                    tell(py, &self.seam, "connection", error);
                    None
                }
            }
        })
    }
}

struct PythonMethod {
    seam: Arc<Seam>,
    name: String,
    answer_nowait: Py<PyAny>,
    answer: Py<PyAny>,
    watch: Py<PyAny>,
    internal: Answer,
}

impl PythonMethod {
    fn call<'py>(
        &self,
        py: Python<'py>,
        function: &Py<PyAny>,
        question: &Question,
        message: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some(caller) = question.origin.downcast_ref::<Caller>() else {
            return Err(PyTypeError::new_err("the origin was made by somebody else"));
        };
        let message = PyBytes::new(py, message);
        match question.deadline {
            None => function.bind(py).call1((&caller.metadata, message)),
            Some(deadline) => {
                let metadata = self
                    .seam
                    .metadata
                    .bind(py)
                    .call1((self.seam.deadline(deadline), &caller.origin))?;
                function.bind(py).call1((metadata, message))
            }
        }
    }

    fn failed(&self, py: Python<'_>, error: PyErr) -> Answer {
        tell(py, &self.seam, &self.name, error);
        self.internal.clone()
    }
}

impl Method for PythonMethod {
    fn answer_nowait(&self, question: &Question, message: &[u8]) -> Option<Answer> {
        Python::attach(|py| {
            let reply = self.call(py, &self.answer_nowait, question, message);
            let answer = reply.and_then(|reply| {
                if reply.is_none() {
                    Ok(None)
                } else {
                    read(&reply).map(Some)
                }
            });
            answer.unwrap_or_else(|error| Some(self.failed(py, error)))
        })
    }

    fn answer(&self, question: &Question, message: &[u8]) -> Answer {
        Python::attach(|py| {
            let reply = self.call(py, &self.answer, question, message);
            reply
                .and_then(|reply| read(&reply))
                .unwrap_or_else(|error| self.failed(py, error))
        })
    }

    fn watch(&self, question: &Question, message: &[u8], send: &mut Taker<'_>) {
        Python::attach(|py| {
            let watched = self.call(py, &self.watch, question, message).and_then(|replies| {
                for reply in replies.try_iter()? {
                    let reply = reply?;
                    let answer = if reply.is_none() { None } else { Some(read(&reply)?) };
                    // Whoever waits for the caller must not keep the interpreter.
                    if !py.detach(|| send(answer)) {
                        break;
                    }
                }
                Ok(())
            });
            if let Err(error) = watched {
                let answer = Some(self.failed(py, error));
                py.detach(|| send(answer));
            }
        });
    }
}

/// Has Python log what it raised.
fn tell(py: Python<'_>, seam: &Seam, name: &str, error: PyErr) {
    if let Err(again) = seam.failed.bind(py).call1((name, error.value(py))) {
        again.write_unraisable(py, None);
    }
}

/// An answer from a `Reply`.
fn read(reply: &Bound<'_, PyAny>) -> PyResult<Answer> {
    let py = reply.py();
    let status: u8 = reply.getattr(intern!(py, "status"))?.extract()?;
    let initial = pairs(&reply.getattr(intern!(py, "initial"))?)?;
    let trailing = pairs(&reply.getattr(intern!(py, "trailing"))?)?;
    if status == code::OK {
        let message = reply.getattr(intern!(py, "message"))?;
        let frame = framing::frame(message.cast::<PyBytes>()?.as_bytes());
        return Ok(Answer {
            frame,
            initial,
            trailing,
            ..Answer::default()
        });
    }
    let details = reply.getattr(intern!(py, "details"))?.extract()?;
    Ok(Answer {
        status,
        details,
        initial,
        trailing,
        ..Answer::default()
    })
}

fn pairs(pairs: &Bound<'_, PyAny>) -> PyResult<Vec<Pair>> {
    pairs.cast::<PyTuple>()?.iter().map(|item| pair(&item)).collect()
}

fn pair(item: &Bound<'_, PyAny>) -> PyResult<Pair> {
    let (name, value): (String, Bound<'_, PyAny>) = item.extract()?;
    let made = match value.cast::<PyBytes>() {
        Ok(bytes) => metadata::pair(&name, bytes.as_bytes()),
        Err(_) => metadata::pair(&name, value.cast::<PyString>()?.to_str()?.as_bytes()),
    };
    made.ok_or_else(|| PyValueError::new_err(format!("{name}: HTTP/2 cannot carry this metadata")))
}

/// A front. `run` is called on one thread, `work` on those of the pool; everything else on any.
#[pyclass(frozen)]
struct Front {
    server: Server,
    seam: Arc<Seam>,
}

#[pymethods]
impl Front {
    /// `methods` are tuples of name, kind, method and refusals by reason; `seam` and `limits` are dictionaries.
    #[new]
    fn new(
        methods: Vec<(String, String, Bound<'_, PyAny>, Bound<'_, PyDict>)>,
        seam: &Bound<'_, PyDict>,
        limits: &Bound<'_, PyDict>,
        bounds: Vec<f64>,
    ) -> PyResult<Self> {
        let monotonic = seam.py().import("time")?.call_method0("monotonic")?.extract()?;
        let held = Arc::new(Seam {
            metadata: of(seam, "metadata")?,
            no_deadline: of(seam, "no_deadline")?,
            failed: of(seam, "failed")?,
            moment: (Instant::now(), monotonic),
        });
        let mut routes = std::collections::HashMap::new();
        for (name, kind, method, refusals) in methods {
            routes.insert(
                name.clone(),
                Arc::new(route(&held, name, &kind, &method, &refusals, &bounds)?),
            );
        }
        let shared = Shared {
            routes,
            identify: Box::new(PythonIdentify {
                seam: Arc::clone(&held),
                make: of(seam, "origin")?,
            }),
            foreign_peer: read(&of::<Bound<'_, PyAny>>(seam, "foreign_peer")?)?,
            limits: Limits {
                max_concurrent: of(limits, "max_concurrent")?,
                in_flight_bytes: of(limits, "in_flight_bytes")?,
                max_message_bytes: of(limits, "max_message_bytes")?,
                max_connections: of(limits, "max_connections")?,
                max_connection_age: Duration::try_from_secs_f64(of(limits, "max_connection_age")?)
                    .map_err(|error| PyValueError::new_err(error.to_string()))?,
            },
            load: Arc::new(Load::default()),
            pool: Pool::default(),
            metrics: Metrics::default(),
        };
        Ok(Self {
            server: Server::new(shared),
            seam: held,
        })
    }

    /// Listens on an IP address; gives the port. `tls` is certificate, key and authority; raises OSError.
    #[pyo3(signature = (address, port, tls=None))]
    fn listen_tcp(&self, address: &str, port: u16, tls: Option<(PathBuf, PathBuf, Option<PathBuf>)>) -> PyResult<u16> {
        let ip = address
            .parse()
            .map_err(|_| PyValueError::new_err(format!("{address} is no IP address")))?;
        let tls = match tls {
            None => None,
            Some((cert, key, client_ca)) => Some(Arc::new(Reloading::new(
                Files { cert, key, client_ca },
                self.reloaded(),
            )?)),
        };
        let (listener, bound) = Listener::tcp(SocketAddr::new(ip, port), tls)?;
        self.server.add(listener);
        Ok(bound.port())
    }

    /// Listens on a path, which must be free; raises OSError.
    fn listen_unix(&self, path: PathBuf, mode: u32) -> PyResult<()> {
        self.server.add(Listener::unix(&path, mode)?);
        Ok(())
    }

    /// Carries calls on this thread until `drain` was called and they have ended.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.server.run())?)
    }

    /// Answers calls on this thread until `close`.
    fn work(&self, py: Python<'_>) {
        py.detach(|| self.server.shared().pool.work(&self.server.shared().metrics));
    }

    /// Takes no more calls; those that are being answered have `grace` seconds.
    fn drain(&self, grace: f64) -> PyResult<()> {
        let grace = Duration::try_from_secs_f64(grace).map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.server.drain(grace);
        Ok(())
    }

    /// Lets the threads in `work` go.
    fn close(&self) {
        self.server.shared().pool.close();
    }

    /// Of each method: name, calls by status code, calls by bucket of their time, seconds of all.
    fn calls(&self) -> Vec<(String, Vec<u64>, Vec<u64>, f64)> {
        let routes = self.server.shared().routes.values();
        routes
            .map(|route| {
                let (codes, buckets, seconds) = route.metrics.read();
                (route.name.clone(), codes, buckets, seconds)
            })
            .collect()
    }

    /// Everything else that is counted, by name; times in seconds.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let shared = self.server.shared();
        let metrics = &shared.metrics;
        let told = PyDict::new(py);
        for (name, counter) in [
            ("connections", &metrics.connections),
            ("connections_accepted", &metrics.connections_accepted),
            ("connections_refused", &metrics.connections_refused),
            ("calls_begun", &metrics.calls_begun),
            ("shed", &metrics.shed),
            ("bytes_in", &metrics.bytes_in),
            ("bytes_out", &metrics.bytes_out),
            ("inline", &metrics.inline),
            ("pooled", &metrics.pooled),
        ] {
            told.set_item(name, counter.load(Relaxed))?;
        }
        told.set_item("pool_waited", metrics.pool_waited.load(Relaxed) as f64 / 1e9)?;
        told.set_item("pool_depth", shared.pool.depth())?;
        told.set_item("bytes_in_flight", shared.load.bytes())?;
        Ok(told)
    }
}

impl Front {
    fn reloaded(&self) -> Box<dyn Fn(Result<(), String>) + Send + Sync> {
        let seam = Arc::clone(&self.seam);
        Box::new(move |result| {
            if let Err(reason) = result {
                Python::attach(|py| tell(py, &seam, "tls", PyValueError::new_err(reason)));
            }
        })
    }
}

fn of<'py, T>(values: &Bound<'py, PyDict>, name: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error: Into<PyErr>>,
{
    values.as_any().get_item(name)?.extract().map_err(Into::into)
}

fn route(
    seam: &Arc<Seam>,
    name: String,
    kind: &str,
    method: &Bound<'_, PyAny>,
    refusals: &Bound<'_, PyDict>,
    bounds: &[f64],
) -> PyResult<Route> {
    let refusal = |reason: &str| read(&of::<Bound<'_, PyAny>>(refusals, reason)?);
    let refusals = Refusals {
        too_many_calls: refusal("TOO_MANY_CALLS")?,
        too_many_bytes: refusal("TOO_MANY_BYTES")?,
        too_large: refusal("TOO_LARGE")?,
        internal: refusal("INTERNAL")?,
    };
    let kind = match kind {
        "UNARY" => Kind::Unary,
        "STREAM" => Kind::Stream,
        "WATCH" => Kind::Watch,
        _ => return Err(PyValueError::new_err(format!("{kind} is no kind of method"))),
    };
    let method = PythonMethod {
        seam: Arc::clone(seam),
        name: name.clone(),
        answer_nowait: method.getattr("answer_nowait")?.unbind(),
        answer: method.getattr("answer")?.unbind(),
        watch: method.getattr("watch")?.unbind(),
        internal: refusals.internal.clone(),
    };
    Ok(Route {
        name,
        kind,
        method: Box::new(method),
        refusals,
        metrics: MethodMetrics::new(bounds),
    })
}

/// The native part of `sark_pdp.transport.front_server`.
#[pymodule]
mod _front {
    #[pymodule_export]
    use super::Front;
}
