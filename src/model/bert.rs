//! model room
