// Which members of the cluster hold each partition: bounded weighted rendezvous hashing (rules P1
// to P3 of the cluster's design).
//
// Every partition has `replicas` owners, each of another zone. Partitions are taken one after the
// other, in an order that a hash fixes; each takes the members with the highest score that have
// room. A member's score grows with its weight; it has room while it holds less than 1.05 times its
// fair share of the rows. Where none has room, the least full one takes the partition; a zone that
// needs all that is left to come to 31/32 of its share goes first.
//
// Integers only, frozen by golden vectors (tests/golden/owners.json): the table is the same on
// every machine.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/table/placement.h"

namespace engram::table {

// A flat table of u16, R for each partition. Immutable; any thread.
class OwnerTable {
 public:
  OwnerTable() = default;
  // `map` is valid; `cuts` are the layers of one table set. Takes about 20 ns for each member of
  // each partition.
  OwnerTable(const ClusterMap& map, std::span<const LayerPartitions> cuts);

  uint32_t replicas() const { return replicas_; }
  // Indices into the map's members, the best score first.
  std::span<const uint16_t> Of(uint32_t layer_index, uint32_t partition) const {
    return {owners_.data() + (first_[layer_index] + partition) * replicas_, replicas_};
  }
  bool Owns(uint16_t member, uint32_t layer_index, uint32_t partition) const;
  // The partitions of a layer that a member holds, ascending.
  std::vector<uint32_t> OwnedBy(uint16_t member, uint32_t layer_index) const;
  struct Partition {
    uint32_t layer_index = 0, partition = 0;
  };
  // The first partition whose owners are all away; `away`: by index in the map's members.
  std::optional<Partition> FirstWithoutOwner(const std::vector<bool>& away) const;
  uint32_t layer_count() const { return static_cast<uint32_t>(first_.size()) - 1; }
  // Of every owner, so that two members that disagree find out.
  uint64_t digest() const;

 private:
  uint32_t replicas_ = 1;
  std::vector<size_t> first_ = {0};  // per layer, in partitions; one more at the end
  std::vector<uint16_t> owners_;
};

// Rows that each member is to hold, by weight; together replicas * total_rows, but for rounding. No
// zone holds a row twice: what is too much for one goes to the others.
std::vector<uint64_t> FairShares(const ClusterMap& map, uint64_t total_rows);

// log2(x) in 1/2^32, rounded down to the linear interpolation of 4,096 exact values an octave.
// `x` > 0.
uint64_t FixedLog2(uint64_t x);

}  // namespace engram::table
