//! The class that Python makes a front with.

mod methods;
mod seam;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::answer::{Kind, Refusals};
use crate::limits::{Limits, Load};
use crate::listeners::Listener;
use crate::metrics::{MethodMetrics, Metrics};
use crate::pool::Pool;
use crate::server::{Route, Server, Shared};
use crate::tls::{Files, Reloading};
use methods::{PythonMethod, read};
use seam::{PythonHost, Seam};

type GivenMethod<'py> = (String, String, bool, Bound<'py, PyAny>, Bound<'py, PyDict>);

/// A front. `run` is called on one thread, `work` on those of the pool; everything else on any.
#[pyclass(frozen)]
struct Front {
    server: Server,
    seam: Arc<Seam>,
    tls: Mutex<Option<Arc<Reloading>>>,
}

#[pymethods]
impl Front {
    /// `methods` are tuples of name, kind, whether it reads pairs, method and refusals by reason; `seam` and `limits` are dictionaries.
    #[new]
    fn new(
        methods: Vec<GivenMethod<'_>>,
        seam: &Bound<'_, PyDict>,
        limits: &Bound<'_, PyDict>,
        bounds: Vec<f64>,
    ) -> PyResult<Self> {
        let monotonic = seam.py().import("time")?.call_method0("monotonic")?.extract()?;
        let held = Arc::new(Seam {
            metadata: of(seam, "metadata")?,
            no_deadline: of(seam, "no_deadline")?,
            ok: of(seam, "ok")?,
            failed: of(seam, "failed")?,
            reloaded: of(seam, "reloaded")?,
            refused: of(seam, "refused")?,
            moment: (Instant::now(), monotonic),
        });
        let mut routes = HashMap::new();
        for given in methods {
            let route = route(&held, given, &bounds)?;
            routes.insert(route.name.clone(), Arc::new(route));
        }
        let shared = Shared {
            routes,
            unknown: MethodMetrics::new(&bounds),
            host: Box::new(PythonHost {
                seam: Arc::clone(&held),
                make: of(seam, "origin")?,
            }),
            foreign_peer: read(&of::<Bound<'_, PyAny>>(seam, "foreign_peer")?, &held)?,
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
            tls: Mutex::default(),
        })
    }

    /// Listens on an IP address; gives the port. `tls` is certificate, key and authority, always the same; raises
    /// OSError.
    #[pyo3(signature = (address, port, tls=None))]
    fn listen_tcp(&self, address: &str, port: u16, tls: Option<(PathBuf, PathBuf, Option<PathBuf>)>) -> PyResult<u16> {
        let ip = address
            .parse()
            .map_err(|_| PyValueError::new_err(format!("{address} is no IP address")))?;
        let tls = match tls {
            None => None,
            Some((cert, key, client_ca)) => Some(self.reloading(Files { cert, key, client_ca })?),
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

    /// Of each method: name, calls by status code, calls by bucket of their time, seconds of all. The one without a
    /// name stands for all that there are not.
    fn calls(&self) -> Vec<(String, Vec<u64>, Vec<u64>, f64)> {
        let shared = self.server.shared();
        let known = shared
            .routes
            .values()
            .map(|route| (route.name.as_str(), &route.metrics));
        known
            .chain([("", &shared.unknown)])
            .map(|(name, metrics)| {
                let (codes, buckets, seconds) = metrics.read();
                (name.to_owned(), codes, buckets, seconds)
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
            ("not_grpc", &metrics.not_grpc),
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
        told.set_item("calls_in_flight", shared.load.calls())?;
        told.set_item("streams", shared.load.streams())?;
        Ok(told)
    }
}

impl Front {
    /// One for all addresses, so that a change is told once.
    fn reloading(&self, files: Files) -> std::io::Result<Arc<Reloading>> {
        let mut shared = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reloading) = &*shared {
            return Ok(Arc::clone(reloading));
        }
        let seam = Arc::clone(&self.seam);
        let told = move |result: Result<(), String>| Python::attach(|py| seam.tell_reloaded(py, result.err()));
        let made = Arc::new(Reloading::new(files, Box::new(told))?);
        *shared = Some(Arc::clone(&made));
        Ok(made)
    }
}

fn of<'py, T>(values: &Bound<'py, PyDict>, name: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error: Into<PyErr>>,
{
    values.as_any().get_item(name)?.extract().map_err(Into::into)
}

fn route(seam: &Arc<Seam>, given: GivenMethod<'_>, bounds: &[f64]) -> PyResult<Route> {
    let (name, kind, wants_pairs, method, refusals) = given;
    let refusal = |reason: &str| read(&of::<Bound<'_, PyAny>>(&refusals, reason)?, seam);
    let refusals = Refusals {
        too_many_calls: refusal("TOO_MANY_CALLS")?,
        too_many_bytes: refusal("TOO_MANY_BYTES")?,
        too_large: refusal("TOO_LARGE")?,
        internal: refusal("INTERNAL")?,
    };
    let kind = match kind.as_str() {
        "UNARY" => Kind::Unary,
        "STREAM" => Kind::Stream,
        "WATCH" => Kind::Watch,
        _ => return Err(PyValueError::new_err(format!("{kind} is no kind of method"))),
    };
    let method = PythonMethod::new(seam, name.clone(), &method, refusals.internal.clone())?;
    Ok(Route {
        name,
        kind,
        wants_pairs,
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
