import { createTarget, FileInTheWay, type SourceFile, type TargetFile } from '../../runtime/image-file.ts'
import { CommandFailure, EXIT } from '../command.ts'
import { PIECE_BYTES } from './streams.ts'

/**
 * Runs `fill` on a new file, which is in its place when that has ended well, and not before. Without `replace` there must be none
 * yet.
 */
export async function intoFile<T>(
  file: string,
  { replace }: { replace: boolean },
  fill: (target: TargetFile) => Promise<T>,
): Promise<T> {
  const target = await createTarget(file, { replace }).catch((error: NodeJS.ErrnoException) => {
    const advice = error instanceof FileInTheWay ? '; --force replaces a file' : ''
    throw new CommandFailure(EXIT.CANNOT_CREATE, `${file} cannot be made: ${error.message}${advice}`, { cause: error })
  })
  try {
    const result = await fill(target)
    await target.commit()
    return result
  } finally {
    await target.discard()
  }
}

/** A file from its start to its end, holes included. */
export async function* chunksOf(file: SourceFile, signal: AbortSignal): AsyncGenerator<Buffer> {
  for (let offset = 0; ; ) {
    signal.throwIfAborted()
    const bytes = Buffer.allocUnsafe(PIECE_BYTES)
    const count = await file.read(offset, bytes)
    if (count > 0) yield bytes.subarray(0, count)
    if (count < bytes.length) return
    offset += count
  }
}

/**
 * A stream in chunks of one size, the last one shorter. The stream is left when the signal is aborted, also while it brings
 * nothing.
 */
export async function* inputChunks(
  input: AsyncIterable<Buffer>,
  chunkBytes: number,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const aborted = new Promise<never>((_, reject) => {
    if (signal.aborted) reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
  aborted.catch(() => {})
  const iterator = input[Symbol.asyncIterator]()
  let pending: Buffer[] = []
  let pendingBytes = 0
  for (;;) {
    const { done, value } = await Promise.race([iterator.next(), aborted])
    if (done) break
    pending.push(value)
    pendingBytes += value.length
    if (pendingBytes < chunkBytes) continue
    const all = Buffer.concat(pending)
    let at = 0
    for (; all.length - at >= chunkBytes; at += chunkBytes) yield all.subarray(at, at + chunkBytes)
    pending = [all.subarray(at)]
    pendingBytes = all.length - at
  }
  if (pendingBytes > 0) yield Buffer.concat(pending)
}
