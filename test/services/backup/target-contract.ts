import { randomBytes, randomUUID } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { inParallel } from '../../../src/services/backup/in-parallel.ts'
import type { BackupTarget } from '../../../src/services/backup/target.ts'

const MIB = 1024 ** 2

/**
 * The promises of src/services/backup/target.ts, for any target. Each test has names of its own, so that the target may be shared;
 * `run` is `test`, or what a host without the servers takes in its place.
 */
export function describeTargetContract(
  kind: string,
  open: () => Promise<BackupTarget>,
  run: (title: string, body: () => Promise<void>) => void = test,
): void {
  describe(`${kind} keeps the contract of backup targets`, () => {
    const newDirectory = () => `container-${randomUUID()}`

    run('keeps objects by name and replaces them as a whole', async () => {
      const target = await open()
      const directory = newDirectory()
      const large = randomBytes(4 * MIB + 1)
      await target.put(`${directory}/one/chunk-1`, Buffer.from('first, and longer'))
      await target.put(`${directory}/one/chunk-1`, Buffer.from('second'))
      await target.put(`${directory}/one/chunk-2`, Buffer.alloc(0))
      await target.put(`${directory}/one/chunk-3`, large)
      expect((await target.get(`${directory}/one/chunk-1`))?.toString()).toBe('second')
      expect(await target.get(`${directory}/one/chunk-2`)).toEqual(Buffer.alloc(0))
      expect((await target.get(`${directory}/one/chunk-3`))?.equals(large)).toBe(true)
    })

    run('has nothing under other names', async () => {
      const target = await open()
      const directory = newDirectory()
      await target.put(`${directory}/one/manifest`, Buffer.from('x'))
      for (const name of ['manifest2', 'manifes', 'page-1'])
        expect(await target.get(`${directory}/one/${name}`)).toBeNull()
      expect(await target.get(`${newDirectory()}/one/manifest`)).toBeNull()
    })

    run('lists what is directly below a directory, by its beginning', async () => {
      const target = await open()
      const directory = newDirectory()
      for (const name of ['one/chunk-1', 'one/page-1', 'one/page-12', 'two/manifest']) {
        await target.put(`${directory}/${name}`, Buffer.from('x'))
      }
      await target.put(`${directory}-other/three/manifest`, Buffer.from('x'))
      const list = async (below: string, beginning?: string) => (await target.list(below, beginning)).sort()
      expect(await list(directory)).toEqual(['one', 'two'])
      expect(await list(`${directory}/one`)).toEqual(['chunk-1', 'page-1', 'page-12'])
      expect(await list(`${directory}/one`, 'page-')).toEqual(['page-1', 'page-12'])
      expect(await list(`${directory}/one`, 'manifest')).toEqual([])
      expect(await list(newDirectory())).toEqual([])
      expect(await list('')).toEqual(expect.arrayContaining([directory, `${directory}-other`]))
    })

    run('has what was put in a batch when that is committed', async () => {
      const target = await open()
      const directory = newDirectory()
      const batch = target.batch()
      const names = Array.from({ length: 9 }, (_, index) => `${directory}/one/chunk-${index}`)
      await inParallel(names, 4, (name) => batch.put(name, Buffer.from(name)))
      await batch.commit()
      expect(await target.list(`${directory}/one`)).toHaveLength(names.length)
      for (const name of names) expect((await target.get(name))?.toString()).toBe(name)
      await target.batch().commit()
      const dropped = target.batch()
      await dropped.put(`${directory}/two/chunk-1`, Buffer.from('x'))
      await dropped.discard()
      await target.removeBelow(`${directory}/two`)
      expect(await target.list(`${directory}/two`)).toEqual([])
    })

    run('removes what is there and what is not', async () => {
      const target = await open()
      const directory = newDirectory()
      for (let index = 0; index < 5; index++) await target.put(`${directory}/one/chunk-${index}`, Buffer.from('x'))
      await target.put(`${directory}/one-more/manifest`, Buffer.from('x'))
      await target.remove(`${directory}/one/chunk-3`)
      await target.remove(`${directory}/one/chunk-3`)
      await target.remove(`${newDirectory()}/never/was`)
      expect(await target.get(`${directory}/one/chunk-3`)).toBeNull()
      await target.removeBelow(`${directory}/one`)
      await target.removeBelow(`${directory}/one`)
      expect(await target.list(`${directory}/one`)).toEqual([])
      expect(await target.list(`${directory}/one-more`)).toEqual(['manifest'])
    })

    run('keeps to its place whatever a user calls a container', async () => {
      const target = await open()
      const directory = newDirectory()
      const names = ['..', '.hidden~', 'a\\b\u0001', 'ünïcode 雪', '%2E%2E', 'a+b c?x=1&y#z<&>']
      for (const name of names) {
        await target.put(`${directory}/${name}/one`, Buffer.from(name))
        expect((await target.get(`${directory}/${name}/one`))?.toString()).toBe(name)
        expect(await target.list(`${directory}/${name}`)).toEqual(['one'])
      }
      expect((await target.list(directory)).sort()).toEqual([...names].sort())
    })
  })
}
