//! Tests of the service: the store on both databases, the worker, serving, the HTTP API and the command line.
#![allow(dead_code, reason = "test drivers have every verb, whichever are used")]
#![allow(clippy::too_many_lines, reason = "a table of cases is one function")]

mod api;
mod backup;
mod cli;
mod generation;
mod heads;
mod methods;
mod openapi;
mod serving;
mod store;
mod support;
mod upgrade;
mod worker;
