//! The simulator: the member on a machine that exists only in memory, decided by a seed.
//!
//! [`executor`] runs futures and time, [`disk`] is a disk that cuts power, tears writes and rots.
//! [`world`] lives a whole member's life on them: [`weather`] says what befalls it, [`member`]
//! starts it, [`clients`] ask it, [`check`] holds the answers against [`model`]. [`states`] looks at all
//! that a crash may leave of a tree. The other files check one idea each. A failing check prints its seed; the same seed fails the same way on every
//! machine. See `docs/simulator.md`.

mod audience;
mod check;
mod check_bounds;
mod check_lease;
mod check_watch;
mod clients;
mod clocks;
mod damage;
mod disk;
mod executor;
mod forge;
mod found;
mod history;
mod inspect_rot;
mod lease_restart;
mod machine;
mod member;
mod model;
mod model_members;
mod mutants;
mod network;
mod parcel;
mod past;
mod room;
mod rot;
mod rough;
mod seeds;
mod states;
mod story;
mod tap;
mod tongue;
mod tree_crash;
mod tree_files;
mod tree_model;
mod tree_rot;
mod tree_snapshot;
mod wal_crash;
mod wal_model;
mod wal_refusal;
mod wal_rot;
mod weather;
mod world;
