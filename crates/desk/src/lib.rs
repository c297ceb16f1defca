//! The person's half: the commands of an employee, the bridge, what is written into other programs' configs, and what
//! tells why something does not work.

pub mod connect;
pub mod connect_all;
pub mod doctor;
pub mod employee;
pub mod inspect;
pub mod install;
pub mod vault;
