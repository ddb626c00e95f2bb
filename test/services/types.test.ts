import { expect, it } from 'vitest'
import { admin, availableVolume, createHarness, everything, member, outcome } from './harness.ts'

const request = (name: string, isPublic = true) => ({ name, description: null, isPublic, extraSpecs: { k: 'v' } })

it('makes the default type once', async () => {
  const harness = await createHarness()
  const type = await harness.services.types.getDefault(member)
  expect(type).toMatchObject({ name: '__DEFAULT__', isPublic: true, extraSpecs: {} })
  const again = await harness.reopen()
  expect(await again.services.types.get(member, type.id)).toEqual(type)
  expect((await again.services.types.list(member, everything, 'public')).items).toHaveLength(1)
})

it('keeps names apart, the default type, and a type in use', async () => {
  const harness = await createHarness()
  const { types } = harness.services
  const { id } = await types.create(admin, request('fast'))
  expect(await outcome(types.create(admin, request('fast')))).toBe('ResourceConflict')
  expect(await outcome(types.delete(admin, (await types.getDefault(admin)).id))).toBe('InvalidInput')
  await availableVolume(harness, { volumeType: id })
  await expect(types.delete(admin, id)).rejects.toThrow('Target volume type is still in use.')
  const { id: unused } = await types.create(admin, request('slow'))
  await types.delete(admin, unused)
  expect(await outcome(types.get(admin, unused))).toBe('VolumeTypeNotFound')
})
