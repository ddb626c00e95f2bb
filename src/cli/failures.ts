import { ConfigError } from '../config.ts'
import { ControlError } from '../control/messages.ts'
import { ServiceError, StartRefused, StoreError, type StoreErrorCode, UsageError } from '../errors.ts'
import { DamagedFile } from '../runtime/files.ts'
import { Interrupted } from '../runtime/process-io.ts'
import { CommandFailure, EXIT } from './command.ts'

const STORE_EXIT = {
  NoVdi: EXIT.NO_INPUT,
  NoBaseVdi: EXIT.NO_INPUT,
  NoTag: EXIT.NO_INPUT,
  NoObject: EXIT.NO_INPUT,
  NoExport: EXIT.NO_INPUT,
  VdiExists: EXIT.CANNOT_CREATE,
  FullVdi: EXIT.CANNOT_CREATE,
  NoSpace: EXIT.CANNOT_CREATE,
  VdiLocked: EXIT.TRY_LATER,
  VdiInUse: EXIT.TRY_LATER,
  OldEpoch: EXIT.TRY_LATER,
  Fenced: EXIT.TRY_LATER,
  NoQuorum: EXIT.TRY_LATER,
  Unsure: EXIT.TRY_LATER,
  ReadOnly: EXIT.NO_PERMISSION,
  InvalidParameters: EXIT.USAGE,
  VersionMismatch: EXIT.UNAVAILABLE,
  Unsupported: EXIT.UNAVAILABLE,
  Busy: EXIT.UNAVAILABLE,
  Stopping: EXIT.UNAVAILABLE,
  Disconnected: EXIT.UNAVAILABLE,
  CorruptBlock: EXIT.DATA_UNSOUND,
  DiskFailed: EXIT.IO,
} as const satisfies Record<StoreErrorCode, number>

/** What a person can do about it, where that does not follow from the message. */
const STORE_ADVICE: Partial<Record<StoreErrorCode, string>> = {
  NoSpace: 'delete VDIs or snapshots, or make the disk larger; `collie cluster info` says how much is free',
  CorruptBlock: '`collie vdi check` lists what cannot be read',
  DiskFailed: "look at the node's log and at that of its kernel",
  Disconnected: '`collie node info` says whether the node is running; `collie serve` starts it',
  NoQuorum: 'start more of the nodes, or mend the network between them',
  Unsure: 'look whether it has been done, and ask again if not',
  Busy: 'try again when the disks have less to do',
  Stopping: 'start it again with `collie serve`',
  Fenced: 'it came under an attachment meanwhile',
}

/** Of local files: what the system said, and the code for it. Anything else that it refuses is `UNAVAILABLE`. */
const FILE_EXIT: Readonly<Record<string, number>> = {
  ENOENT: EXIT.NO_INPUT,
  EISDIR: EXIT.NO_INPUT,
  ENOTDIR: EXIT.NO_INPUT,
  EACCES: EXIT.NO_PERMISSION,
  EPERM: EXIT.NO_PERMISSION,
  EROFS: EXIT.NO_PERMISSION,
  EEXIST: EXIT.CANNOT_CREATE,
  ENOSPC: EXIT.IO,
  EDQUOT: EXIT.IO,
  EIO: EXIT.IO,
}
const FILE_CALLS: ReadonlySet<string> = new Set(['open', 'read', 'write', 'fsync', 'ftruncate', 'rename', 'lstat'])

/** The exit code and the message for whatever a command rejected with. */
export function explain(error: unknown): { code: number; message: string } {
  if (error instanceof CommandFailure) return { code: error.exitCode, message: error.message }
  if (error instanceof UsageError) return { code: EXIT.USAGE, message: error.message }
  if (error instanceof StartRefused) return { code: EXIT.CONFIG, message: error.message }
  if (error instanceof ServiceError && error.code === 'ServiceUnavailable') {
    return { code: EXIT.UNAVAILABLE, message: error.message }
  }
  if (error instanceof ConfigError) return { code: EXIT.CONFIG, message: `settings: ${error.message}` }
  if (error instanceof StoreError) return { code: STORE_EXIT[error.code], message: withAdvice(error) }
  if (error instanceof ControlError) {
    return { code: storeExitOf(error.code) ?? EXIT.INTERNAL, message: error.message }
  }
  if (error instanceof DamagedFile) return { code: EXIT.DATA_UNSOUND, message: error.message }
  if (error instanceof Interrupted) return { code: error.exitCode, message: error.message }
  if (error instanceof Error && 'syscall' in error) {
    const { code = '', syscall } = error as NodeJS.ErrnoException
    const fileExit = FILE_CALLS.has(String(syscall)) ? FILE_EXIT[code] : undefined
    return { code: fileExit ?? EXIT.UNAVAILABLE, message: error.message }
  }
  return { code: EXIT.INTERNAL, message: error instanceof Error ? (error.stack ?? error.message) : String(error) }
}

/** For the name of a store error, as the control channel carries it; undefined for its own. */
function storeExitOf(code: string): number | undefined {
  return Object.entries(STORE_EXIT).find(([name]) => name === code)?.[1]
}

export function withAdvice(error: StoreError): string {
  const advice = STORE_ADVICE[error.code]
  return advice === undefined ? error.message : `${error.message}; ${advice}`
}
