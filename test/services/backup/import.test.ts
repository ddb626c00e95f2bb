import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { FoundBackup } from '../../../src/services/backup-comparison.ts'
import { inOrder } from '../../../src/services/backup-import.ts'
import { openBackupTarget } from '../../tools/backup-target.ts'
import { admin, availableVolume, contextOf, createHarness, member, outcome } from '../harness.ts'
import { backUp, fill, loseAndRestore, newCloud, restore, takeOver } from './lost-cloud.ts'

describe('backups on a target that no database knows', () => {
  it('are taken over with their chains, by the projects that they were of, and restored', async () => {
    await loseAndRestore(await openBackupTarget())
  })

  it('bring what they are based on with them, and go where they are told', async () => {
    const lost = await createHarness()
    const id = await availableVolume(lost)
    const [full, next] = [await backUp(lost, id), await backUp(lost, id, true)]
    await backUp(lost, id)
    const cloud = await newCloud(lost)
    const projectId = 'a-new-project'
    expect(await takeOver(cloud, [next], { projectId })).toEqual(new Map([full, next].map((one) => [one, 'imported'])))
    const by = contextOf({ projectId })
    expect((await cloud.services.backups.get(by, next)).status).toBe('available')
    expect(await outcome(cloud.services.backups.get(member, next))).toBe('BackupNotFound')
  })

  it('are refused with the reason, and so is what is based on them', async () => {
    const lost = await createHarness()
    const id = await availableVolume(lost)
    await fill(lost, id, 0, randomBytes(4096))
    const full = await backUp(lost, id)
    const same = await backUp(lost, id, true)
    await fill(lost, id, 0, randomBytes(4096))
    const next = await backUp(lost, id, true)
    const { container } = await lost.services.backups.get(member, full)
    await lost.backups.remove(`${container}/${full}/page-0`)
    const unfinished = await backUp(lost, id)
    await lost.backups.remove(`${container}/${unfinished}/manifest`)
    const whole = await backUp(lost, id)
    const missing = '6a122f4b-d2f6-448f-aeb5-68bae5ff8358'

    const cloud = await newCloud(lost)
    expect(await takeOver(cloud, [same, next, unfinished, whole, missing], { quota: { backups: 0 } })).toEqual(
      new Map([
        [full, 'it is incomplete on the target'],
        [same, 'it is incomplete on the target'], // that page is its own as well
        [next, `Invalid backup: It is based on backup ${same}, which has to be imported before.`],
        [unfinished, 'it is without a manifest on the target'],
        [whole, expect.stringMatching(/[Mm]aximum number of backups|quota/)],
        [missing, 'it is not on the target'],
      ]),
    )
    expect(await cloud.db('backups')).toEqual([])
    expect(await takeOver(cloud, [whole])).toEqual(new Map([[whole, 'imported']]))
  })

  it('of encrypted volumes need their key', async () => {
    const lost = await createHarness()
    const { services } = lost
    const type = await services.types.create(admin, { name: 'luks', description: null, isPublic: true, extraSpecs: {} })
    await services.typeEncryption.create(admin, type.id, {
      provider: 'luks',
      controlLocation: 'front-end',
      cipher: 'aes-xts-plain64',
      keySize: 256,
    })
    const backup = await backUp(lost, await availableVolume(lost, { volumeType: 'luks' }))
    const cloud = await newCloud(lost)
    expect(await takeOver(cloud)).toEqual(
      new Map([[backup, expect.stringMatching(/^it is encrypted, and its key .* was in the database that is lost$/)]]),
    )
    // The database is there, and the backup came after it.
    await lost.db('backups').delete()
    expect(await takeOver(lost)).toEqual(new Map([[backup, 'imported']]))
    const restored = await services.volumes.get(member, await restore(lost, backup))
    expect(restored.encryptionKeyId).not.toBeNull()
  })
})

it('are put in an order in which each follows what it is based on', () => {
  const chain = fc.array(fc.option(fc.nat({ max: 20 }), { nil: null }), { minLength: 1, maxLength: 21 })
  fc.assert(
    fc.property(chain, fc.array(fc.nat({ max: 25 })), (parents, picked) => {
      const nameOf = (index: number) => `backup-${index}`
      const found = new Map(
        parents.map((parent, index) => {
          const manifest = { parent_id: parent === null ? null : nameOf(parent) } as FoundBackup['manifest']
          return [nameOf(index), { container: 'c', state: 'whole', manifest } as FoundBackup]
        }),
      )
      const wanted = picked.map(nameOf)
      const order = inOrder(found, wanted)
      expect(new Set(order).size).toBe(order.length)
      expect(order).toEqual(expect.arrayContaining(wanted))
      const isBelowItself = (id: string) => {
        const seen = new Set<string>()
        for (let one: string | null | undefined = id; one; one = found.get(one)?.manifest?.parent_id) {
          if (seen.has(one)) return true
          seen.add(one)
        }
        return false
      }
      for (const id of order) {
        const parent = found.get(id)?.manifest?.parent_id
        if (!parent || isBelowItself(id)) continue
        expect(order.indexOf(parent)).toBeGreaterThanOrEqual(0)
        expect(order.indexOf(parent)).toBeLessThan(order.indexOf(id))
      }
    }),
  )
})
