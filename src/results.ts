import { StoreError, type StoreErrorCode } from './errors.ts'
import { RESULT, resultName } from './protocol/constants.ts'

/**
 * The result code that each failure of the store has on the wire. One code per failure, so that Collie's own client gets
 * back what was thrown; where foreign clients have a branch, it is the code that they expect.
 */
const RESULT_OF = {
  NoVdi: RESULT.NO_VDI,
  VdiExists: RESULT.VDI_EXIST,
  NoBaseVdi: RESULT.NO_BASE_VDI,
  NoTag: RESULT.NO_TAG,
  VdiLocked: RESULT.VDI_LOCKED,
  VdiInUse: RESULT.VDI_NOT_EMPTY,
  FullVdi: RESULT.FULL_VDI,
  NoObject: RESULT.NO_OBJ,
  NoExport: RESULT.NOT_FOUND,
  ReadOnly: RESULT.READONLY,
  InvalidParameters: RESULT.INVALID_PARMS,
  VersionMismatch: RESULT.VER_MISMATCH,
  NoSpace: RESULT.NO_SPACE,
  CorruptBlock: RESULT.CORRUPT_BLOCK,
  DiskFailed: RESULT.EIO,
  OldEpoch: RESULT.OLD_NODE_VER,
  Fenced: RESULT.FENCED,
  NoQuorum: RESULT.HALT,
  Unsure: RESULT.JOIN_FAILED,
  Busy: RESULT.AGAIN,
  Stopping: RESULT.SHUTDOWN,
  Disconnected: RESULT.NETWORK_ERROR,
  Unsupported: RESULT.NO_SUPPORT,
} as const satisfies Record<StoreErrorCode, number>

const CODE_OF: ReadonlyMap<number, StoreErrorCode> = new Map(
  Object.entries(RESULT_OF).map(([code, result]) => [result, code as StoreErrorCode]),
)

/** What to answer when an operation threw. Anything but a StoreError is a defect of ours: SYSTEM_ERROR. */
export function resultOf(error: unknown): number {
  return error instanceof StoreError ? RESULT_OF[error.code] : RESULT.SYSTEM_ERROR
}

/** What to throw for a result that a sheep answered; null for SUCCESS. Codes that stand for no failure of ours are DiskFailed. */
export function errorOf(result: number): StoreError | null {
  if (result === RESULT.SUCCESS) return null
  const code = CODE_OF.get(result)
  return code === undefined ? new StoreError('DiskFailed', `result ${resultName(result)}`) : new StoreError(code)
}
