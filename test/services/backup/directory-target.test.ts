import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ServiceError } from '../../../src/errors.ts'
import { openSystemDisk } from '../../../src/runtime/system-disk.ts'
import { createDirectoryTarget } from '../../../src/services/backup/directory-target.ts'
import type { BackupTarget } from '../../../src/services/backup/target.ts'

let directory: string
let target: BackupTarget

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'collie-target-'))
  target = createDirectoryTarget(openSystemDisk(directory))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const filesBelow = (path: string) => readdirSync(path, { recursive: true }).map(String).sort()

describe('a directory as backup target', () => {
  it('keeps objects by name and replaces them as a whole', async () => {
    await target.put('container/one/chunk-1', Buffer.from('first, and longer'))
    await target.put('container/one/chunk-1', Buffer.from('second'))
    await target.put('container/one/chunk-2', Buffer.alloc(0))
    expect((await target.get('container/one/chunk-1')).toString()).toBe('second')
    expect(await target.get('container/one/chunk-2')).toEqual(Buffer.alloc(0))
    expect((await target.list('container/one')).sort()).toEqual(['chunk-1', 'chunk-2'])
    expect(await target.list('container')).toEqual(['one'])
    expect(await target.list('container/none')).toEqual([])
  })

  it('removes what is there and what is not', async () => {
    await target.put('a/b', Buffer.from('x'))
    await target.remove('a/b')
    await target.remove('a/b')
    await target.remove('never/was')
    expect(await target.list('a')).toEqual([])
  })

  it('says which object is missing', async () => {
    const refused = target.get('a/b/manifest')
    await expect(refused).rejects.toThrow(ServiceError)
    await expect(refused).rejects.toThrow(/a\/b\/manifest/)
  })

  it('stays in its directory whatever a user calls a container', async () => {
    const outside = join(directory, 'inner')
    mkdirSync(outside)
    const inner = createDirectoryTarget(openSystemDisk(outside))
    for (const name of ['..', '.', '~', '.hidden', 'a\\b', 'nul\u0001', 'ünïcode', '%2E%2E', 'x~']) {
      await inner.put(`${name}/one`, Buffer.from(name))
      expect((await inner.get(`${name}/one`)).toString()).toBe(name)
      expect(await inner.list(name)).toEqual(['one'])
    }
    expect(readdirSync(directory)).toEqual(['inner'])
  })

  it('does not take what is half written, or somebody else’s, for an object', async () => {
    await target.put('a/b', Buffer.from('x'))
    writeFileSync(join(directory, 'a', 'c~'), 'cut by a crash')
    writeFileSync(join(directory, 'a', '%zz'), 'no name')
    expect(await target.list('a')).toEqual(['b'])
    await target.put('a/c', Buffer.from('whole'))
    expect(readFileSync(join(directory, 'a', 'c'), 'utf8')).toBe('whole')
    expect(filesBelow(directory)).toEqual(['a', 'a/%zz', 'a/b', 'a/c'])
  })
})
