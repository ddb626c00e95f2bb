import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll } from 'vitest'
import { systemHttp } from '../../src/runtime/http-client.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { openSystemDisk } from '../../src/runtime/system-disk.ts'
import { createGlance } from '../../src/services/images/glance.ts'
import type { ImageOptions } from '../../src/services/images/images.ts'
import { createSpool } from '../../src/services/images/spool.ts'
import { createSeal, SEAL_KEY_BYTES } from '../../src/services/seal.ts'

const directories: string[] = []
// Not at the exit of the process: workers of the runner are ended without one.
afterAll(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true })
})

const newSeal = () => createSeal(systemRandom.bytes(SEAL_KEY_BYTES), systemRandom)

/** As the program makes them, with a directory that goes with the tests of the file. An attempt moves one piece, so that there are many. */
export function imageOptions(
  url: string,
  { bytesMax = 2 ** 40, timeoutMs = 20_000, sliceMs = 0, transfersMax = 4, seal = newSeal() } = {},
): ImageOptions & { directory: string } {
  const directory = mkdtempSync(path.join(tmpdir(), 'collie-conversion-'))
  directories.push(directory)
  return {
    service: createGlance({ http: systemHttp, url, timeoutMs }),
    spool: createSpool({ disk: openSystemDisk(directory), directory, bytesMax, random: systemRandom }),
    seal,
    transfersMax,
    sliceMs,
    directory,
  }
}
