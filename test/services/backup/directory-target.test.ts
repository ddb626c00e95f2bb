import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ServiceError } from '../../../src/errors.ts'
import { openSystemDisk } from '../../../src/runtime/system-disk.ts'
import { createDirectoryTarget } from '../../../src/services/backup/directory-target.ts'
import type { BackupTarget } from '../../../src/services/backup/target.ts'
import { openBackupTarget } from '../../tools/backup-target.ts'
import { describeTargetContract } from './target-contract.ts'

let directory: string
let target: BackupTarget

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'collie-target-'))
  target = createDirectoryTarget(openSystemDisk(directory))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const filesBelow = (path: string) => readdirSync(path, { recursive: true }).map(String).sort()

describeTargetContract('a directory', openBackupTarget)

describe('a directory as backup target', () => {
  it('says at which object something went wrong', async () => {
    mkdirSync(join(directory, 'a', 'b'), { recursive: true })
    const refused = target.get('a/b')
    await expect(refused).rejects.toThrow(ServiceError)
    await expect(refused).rejects.toThrow(/the backup target, at a\/b: EISDIR/)
  })

  it('stays below its directory', async () => {
    const outside = join(directory, 'inner')
    mkdirSync(outside)
    const inner = createDirectoryTarget(openSystemDisk(outside))
    for (const name of ['..', '.', '../..', '%2E%2E']) await inner.put(`${name}/one`, Buffer.from(name))
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

  it('shows nothing of a batch under its name before that is durable, and clears away what is left of one', async () => {
    const batch = target.batch()
    await batch.put('a/chunk-1', Buffer.from('x'))
    expect(await target.list('a')).toEqual([])
    expect(filesBelow(directory)).toEqual(['a', 'a/chunk-1~'])
    await batch.discard()
    writeFileSync(join(directory, 'a', '%zz'), 'no name')
    await target.removeBelow('a')
    expect(filesBelow(directory)).toEqual(['a', 'a/%zz'])
  })
})
