import type { StoreError } from '../errors.ts'
import type { Account } from './accounts.ts'
import type { CopyRecord } from './copies/copy-records.ts'
import type { InheritRun } from './object-format.ts'
import type { StoredObject } from './stored-object.ts'

/** What a transaction does; see ObjectStore.commit. An object that the same transaction makes is named by its oid. */
export type Change =
  | { kind: 'create'; oid: bigint; runs: readonly InheritRun[] }
  /** Whole blocks; with the CRC-32 of each, from 0, if somebody has them already. */
  | {
      kind: 'blocks'
      object: StoredObject | bigint
      first: number
      bytes: Buffer
      crcs?: Uint32Array | undefined
    }
  | { kind: 'zero'; object: StoredObject | bigint; first: number; count: number }
  /** The blocks have the bytes of the same blocks of the object of `holderVid` again. */
  | { kind: 'inherit'; object: StoredObject | bigint; first: number; count: number; holderVid: number }
  | { kind: 'remove'; oid: bigint }
  | { kind: 'entry'; index: number; bytes: Buffer }
  /** What this node knows of its copies from now on; who commits it keeps it in mind itself. */
  | { kind: 'copies'; record: CopyRecord }
  | AccountChange

/** What a transaction does to the account of a VDI; see Accounts. */
export type AccountChange =
  /** Blocks that come into its view, or leave it, with the object of `index`. */
  | { kind: 'account'; vid: number; index: number; deltas: Account }
  /** The account is this from now on. */
  | { kind: 'accountSet'; vid: number; account: Account }

export type StoreDone = (error: StoreError | null) => void
