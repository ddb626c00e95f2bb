import { expect, it } from 'vitest'
import { admin, availableVolume, createHarness, everything, member, outcome } from './harness.ts'

const request = (name: string, isPublic = true) => ({ name, description: null, isPublic, extraSpecs: { k: 'v' } })

it('makes the default type once', async () => {
  const harness = await createHarness()
  const type = await harness.services.types.get(member, 'default')
  expect(type).toMatchObject({ name: '__DEFAULT__', isPublic: true, extraSpecs: {} })
  const again = await harness.reopen()
  expect(await again.services.types.get(member, type.id)).toEqual(type)
  expect((await again.services.types.list(member, everything)).items).toHaveLength(1)
})

it('keeps names apart, the default type, and a type in use', async () => {
  const harness = await createHarness()
  const { types } = harness.services
  const { id } = await types.create(admin, request('fast'))
  expect(await outcome(types.create(admin, request('fast')))).toBe('ResourceConflict')
  expect(await outcome(types.delete(admin, (await types.get(admin, 'default')).id))).toBe('InvalidInput')
  await availableVolume(harness, { volumeType: id })
  await expect(types.delete(admin, id)).rejects.toThrow('Target volume type is still in use.')
  const { id: unused } = await types.create(admin, request('slow'))
  await types.delete(admin, unused)
  expect(await outcome(types.get(admin, unused))).toBe('VolumeTypeNotFound')
})

it('shows private types to administrators only', async () => {
  const harness = await createHarness()
  const { types } = harness.services
  const { id } = await types.create(admin, request('private', false))
  expect(await outcome(types.get(member, id))).toBe('VolumeTypeNotFound')
  expect(await outcome(availableVolume(harness, { volumeType: 'private' }))).toBe('VolumeTypeNotFound')
  const names = async (context: typeof member, filters: Record<string, boolean | Record<string, string>> = {}) =>
    (await types.list(context, { ...everything, filters })).items.map(({ name }) => name)
  expect(await names(member)).toEqual(['__DEFAULT__'])
  expect(await names(member, { is_public: false })).toEqual(['__DEFAULT__'])
  expect(await names(admin)).toEqual(['private', '__DEFAULT__'])
  expect(await names(admin, { is_public: false })).toEqual(['private'])
  expect(await names(admin, { extra_specs: { k: 'v' } })).toEqual(['private'])
})
