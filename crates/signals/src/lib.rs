//! Shared signals (OpenID Shared Signals Framework 1.0, CAEP, RISC): an identity provider tells those who
//! listen what happens to people while they are signed in, and hears it from others.

mod receiver;
mod transmitter;

pub use receiver::{Heard, Named, Receives, routes as receiver_routes, transmitters};
pub use transmitter::{
    Transmits, configuration_route, issue_token, routes as transmitter_routes, tell, tell_once,
};
