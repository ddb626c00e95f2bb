import type { Capability } from './extra-specs.ts'
import type { Pool } from './scheduler.ts'

/**
 * What a pool says of itself in the words of upstream's drivers: what extra specs are compared with, and what the list of
 * pools shows.
 */
export function capabilitiesOf(pool: Pool): Readonly<Record<string, Capability>> {
  return {
    volume_backend_name: pool.volumeBackendName,
    pool_name: pool.poolName,
    storage_protocol: pool.storageProtocol,
    vendor_name: 'Collie',
    total_capacity_gb: pool.totalCapacityGib,
    free_capacity_gb: pool.freeCapacityGib,
    allocated_capacity_gb: pool.allocatedCapacityGib,
    provisioned_capacity_gb: pool.provisionedCapacityGib + pool.promisedGib,
    reserved_percentage: pool.reservedPercentage,
    max_over_subscription_ratio: pool.maxOverSubscriptionRatio,
    thin_provisioning_support: pool.thinProvisioning,
    thick_provisioning_support: !pool.thinProvisioning,
    multiattach: pool.multiattach,
    online_extend_support: pool.extendInUse,
    total_volumes: pool.volumeCount,
    copies_max: pool.sizeFactors.length, // `sheepdog:copies` of a type may be so many
    consistent_group_snapshot_enabled: true, // every driver promises it
    consistent_group_replication_enabled: false,
    QoS_support: false,
    replication_enabled: false,
    filter_function: null,
    goodness_function: null,
  }
}
