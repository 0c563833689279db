//! Location and download of base models, against an HTTP server on the loopback interface.

mod caching;
mod downloading;
mod folders;
mod refusals;
