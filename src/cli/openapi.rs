//! `espalier openapi`: the API's description, from the code.

use super::failure::Outcome;
use super::output::{Form, Output};
use crate::http;

pub fn run() -> Outcome {
    Output::new(Form::People).line(http::yaml()?.trim_end())
}
