import { DISK_FAULTS } from './disk-faults.ts'
import { HOST_FAULTS } from './host-faults.ts'
import { NETWORK_FAULTS } from './network-faults.ts'

export const FAULTS = { ...HOST_FAULTS, ...NETWORK_FAULTS, ...DISK_FAULTS }

export type FaultKind = keyof typeof FAULTS
export const FAULT_KINDS = Object.keys(FAULTS) as FaultKind[]
