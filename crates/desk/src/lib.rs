//! The person's side: employee commands, the bridge, installation into other programs' configs, and
//! diagnosis.

pub mod connect;
pub mod connect_all;
pub mod doctor;
pub mod employee;
pub mod inspect;
pub mod install;
pub mod vault;
