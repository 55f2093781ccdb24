//! Transcripts: what happened, and what the controller did about it.

mod one_broker;
mod three_brokers;
mod world;
