//! Methods that are written in Python, and what they reply.

use std::sync::Arc;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use super::seam::{Caller, Seam};
use crate::answer::{Answer, Method, Pair, Question, Taker, code};
use crate::framing;
use crate::metadata;

/// One method.
pub struct PythonMethod {
    seam: Arc<Seam>,
    name: String,
    answer_nowait: Py<PyAny>,
    answer: Py<PyAny>,
    watch: Py<PyAny>,
    internal: Answer,
}

impl PythonMethod {
    /// `internal` is what a caller is told when the method raises.
    pub fn new(seam: &Arc<Seam>, name: String, method: &Bound<'_, PyAny>, internal: Answer) -> PyResult<Self> {
        Ok(Self {
            seam: Arc::clone(seam),
            name,
            answer_nowait: method.getattr("answer_nowait")?.unbind(),
            answer: method.getattr("answer")?.unbind(),
            watch: method.getattr("watch")?.unbind(),
            internal,
        })
    }

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
        let metadata = self.seam.metadata(py, caller, question)?;
        function.bind(py).call1((metadata, PyBytes::new(py, message)))
    }

    fn failed(&self, py: Python<'_>, error: PyErr) -> Answer {
        self.seam.tell(py, &self.name, error);
        self.internal.clone()
    }
}

impl Method for PythonMethod {
    fn answer_nowait(&self, question: &Question, message: &[u8]) -> Option<Answer> {
        Python::attach(|py| {
            let answer =
                self.call(py, &self.answer_nowait, question, message)
                    .and_then(|reply| match reply.is_none() {
                        true => Ok(None),
                        false => read(&reply, &self.seam).map(Some),
                    });
            answer.unwrap_or_else(|error| Some(self.failed(py, error)))
        })
    }

    fn answer(&self, question: &Question, message: &[u8]) -> Answer {
        Python::attach(|py| {
            self.call(py, &self.answer, question, message)
                .and_then(|reply| read(&reply, &self.seam))
                .unwrap_or_else(|error| self.failed(py, error))
        })
    }

    fn watch(&self, question: &Question, message: &[u8], send: &mut Taker<'_>) {
        Python::attach(|py| {
            let watched = self.call(py, &self.watch, question, message).and_then(|replies| {
                for reply in replies.try_iter()? {
                    let reply = reply?;
                    let answer = match reply.is_none() {
                        true => None,
                        false => Some(read(&reply, &self.seam)?),
                    };
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

/// An answer from a `Reply`.
pub fn read(reply: &Bound<'_, PyAny>, seam: &Seam) -> PyResult<Answer> {
    let py = reply.py();
    let mut answer = Answer {
        initial: pairs(&reply.getattr(intern!(py, "initial"))?)?,
        trailing: pairs(&reply.getattr(intern!(py, "trailing"))?)?,
        ..Answer::default()
    };
    let status = reply.getattr(intern!(py, "status"))?;
    // Mostly it is this very object, and need not be read.
    if !status.is(&seam.ok) {
        answer.status = status.extract()?;
    }
    if answer.status == code::OK {
        let message = reply.getattr(intern!(py, "message"))?;
        answer.frame = framing::frame(message.cast::<PyBytes>()?.as_bytes());
    } else {
        answer.details = reply.getattr(intern!(py, "details"))?.extract()?;
    }
    Ok(answer)
}

fn pairs(pairs: &Bound<'_, PyAny>) -> PyResult<Vec<Pair>> {
    let pairs = pairs.cast::<PyTuple>()?;
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    pairs.iter().map(|item| pair(&item)).collect()
}

fn pair(item: &Bound<'_, PyAny>) -> PyResult<Pair> {
    let (name, value): (String, Bound<'_, PyAny>) = item.extract()?;
    let made = match value.cast::<PyBytes>() {
        Ok(bytes) => metadata::pair(&name, bytes.as_bytes()),
        Err(_) => metadata::pair(&name, value.cast::<PyString>()?.to_str()?.as_bytes()),
    };
    made.ok_or_else(|| PyValueError::new_err(format!("{name}: no method can send this metadata")))
}
