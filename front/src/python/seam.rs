//! What Python is called with and what comes back, besides the methods themselves.

use std::sync::Arc;
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::answer::{Host, Origin, Pairs, Peer, Question};
use crate::request::Value;

/// What Python is called with besides methods.
pub struct Seam {
    /// `Metadata`: made of a deadline, an origin and pairs.
    pub metadata: Py<PyAny>,
    /// `NO_DEADLINE`.
    pub no_deadline: Py<PyAny>,
    /// `Status.OK`.
    pub ok: Py<PyAny>,
    /// Takes the name of a method and what it raised.
    pub failed: Py<PyAny>,
    /// Takes why new certificates cannot be used, or None where they are.
    pub reloaded: Py<PyAny>,
    /// Takes the address of a client without a good certificate, and what is wrong with it.
    pub refused: Py<PyAny>,
    /// One moment on two clocks: Rust's, and `time.monotonic()`.
    pub moment: (Instant, f64),
}

impl Seam {
    /// Has Python log what it raised.
    pub fn tell(&self, py: Python<'_>, name: &str, error: PyErr) {
        if let Err(again) = self.failed.bind(py).call1((name, error.value(py))) {
            again.write_unraisable(py, None);
        }
    }

    /// Has Python log that certificates were read again.
    pub fn tell_reloaded(&self, py: Python<'_>, problem: Option<String>) {
        if let Err(error) = self.reloaded.bind(py).call1((problem,)) {
            error.write_unraisable(py, None);
        }
    }

    /// `Metadata` of a call; the caller's own where it has nothing of its own to say.
    pub fn metadata<'py>(&self, py: Python<'py>, caller: &Caller, question: &Question) -> PyResult<Bound<'py, PyAny>> {
        if question.deadline.is_none() && question.pairs.is_none() {
            return Ok(caller.metadata.bind(py).clone());
        }
        let deadline = match question.deadline {
            Some(deadline) => self.deadline(deadline).into_pyobject(py)?.into_any(),
            None => self.no_deadline.bind(py).clone(),
        };
        let make = self.metadata.bind(py);
        match &question.pairs {
            Some(pairs) => make.call1((deadline, &caller.origin, tuple(py, pairs)?)),
            None => make.call1((deadline, &caller.origin)),
        }
    }

    fn deadline(&self, deadline: Instant) -> f64 {
        let (then, monotonic) = self.moment;
        match deadline.checked_duration_since(then) {
            Some(later) => monotonic + later.as_secs_f64(),
            None => monotonic,
        }
    }
}

fn tuple<'py>(py: Python<'py>, pairs: &Pairs) -> PyResult<Bound<'py, PyTuple>> {
    let made: Vec<_> = pairs
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Value::Text(text) => text.into_pyobject(py)?.into_any(),
                Value::Binary(bytes) => PyBytes::new(py, bytes).into_any(),
            };
            (name, value).into_pyobject(py)
        })
        .collect::<PyResult<_>>()?;
    PyTuple::new(py, made)
}

/// Who called, as Python sees it.
pub struct Caller {
    origin: Py<PyAny>,
    /// `Metadata` of a call without a deadline: most that have none share it.
    metadata: Py<PyAny>,
}

/// Python, as the place where methods live.
pub struct PythonHost {
    /// See there.
    pub seam: Arc<Seam>,
    /// Takes an address, a user agent, names or None, and a user id or None; gives an `Origin` or None.
    pub make: Py<PyAny>,
}

impl PythonHost {
    fn make(&self, py: Python<'_>, peer: &Peer, user_agent: &str) -> PyResult<Option<Caller>> {
        let origin = self
            .make
            .bind(py)
            .call1((&peer.address, user_agent, peer.names.clone(), peer.uid))?;
        if origin.is_none() {
            return Ok(None);
        }
        let metadata = self.seam.metadata.bind(py).call1((&self.seam.no_deadline, &origin))?;
        Ok(Some(Caller {
            origin: origin.unbind(),
            metadata: metadata.unbind(),
        }))
    }
}

impl Host for PythonHost {
    fn origin(&self, peer: &Peer, user_agent: &str) -> Option<Origin> {
        Python::attach(|py| match self.make(py, peer, user_agent) {
            Ok(caller) => caller.map(|caller| Arc::new(caller) as Origin),
            Err(error) => {
                self.seam.tell(py, "connection", error);
                None
            }
        })
    }

    fn refused(&self, address: &str, reason: &str) {
        Python::attach(|py| {
            if let Err(error) = self.seam.refused.bind(py).call1((address, reason)) {
                error.write_unraisable(py, None);
            }
        });
    }

    fn in_a_row(&self, asking: &mut dyn FnMut()) {
        Python::attach(|_| asking());
    }
}
