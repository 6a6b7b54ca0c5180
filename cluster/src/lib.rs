//! # The cluster: several nodes, one database
//!
//! This crate will hold what makes RustyDB survive the loss of a machine and use more than one: replication of the
//! commit log by Raft (`openraft`), replicas that answer queries, and queries spread over nodes (DataFusion's
//! distributed executor). It holds no code yet, because there is nothing yet that a second node could be given: it
//! comes once a single node's log, snapshots and recovery have the form that will be replicated.
//!
//! What is fixed already, so that the crates below leave room for it:
//!
//! - **The Raft log is the commit log.** A transaction is one log record, complete and logical; replicating the log
//!   replicates the database, and a commit costs one fsync, not two. So `storage` must let somebody else decide when a
//!   record is committed, between its append and its publication.
//! - **Consensus decides, storage stores.** Raft's state machine runs without I/O; entries, votes and snapshots are
//!   kept by `storage`, in the files it has anyway (segments, manifest, log).
//! - **A query reads one timestamp on all nodes.** A shard's scan takes the snapshot's timestamp as an argument, so the
//!   same fragment of a plan can run on another replica after a failure, unseen by the client.
//! - **Edges.** The engine knows nothing of nodes. What it needs from here (where a table's shards are, how to run a
//!   fragment elsewhere) it will define as a trait and this crate will implement; until the engine has a caller for such
//!   a trait there is none. `flight` and the binary sit above and put the two together.
//!
//! Protocol types of the inter-node wire (gRPC, protobuf) will live here and in `flight`, nowhere else: see the table in
//! `xtask/src/tidy/edges.rs`, which is checked.
