//! Finding the base model, against a real HTTP server on the loopback interface.
mod caching;
mod downloading;
mod folders;
mod refusals;
mod server;
