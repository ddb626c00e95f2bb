import { describe, expect, it, vi } from 'vitest'
import { zonesFor } from '../../src/services/placement.ts'
import { runsPostgres } from '../tools/postgres.ts'
import {
  admin,
  availableVolume,
  contextOf,
  createHarness,
  everything,
  type Harness,
  member,
  newVolume,
  outcome,
  stranger,
  TEST_SETTINGS,
} from './harness.ts'

const request = (name: string, isPublic = true, extraSpecs: Record<string, string> = { k: 'v' }) => ({
  name,
  description: null,
  isPublic,
  extraSpecs,
})

const LUKS = { provider: 'luks', controlLocation: 'front-end', cipher: 'aes-xts-plain64', keySize: 256 } as const

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

it('changes what is given and leaves the rest', async () => {
  const { types } = (await createHarness()).services
  const { id } = await types.create(admin, request('fast'))
  await types.create(admin, request('slow'))
  expect(await types.update(admin, id, { description: 'new' })).toMatchObject({ name: 'fast', description: 'new' })
  expect(await types.update(admin, id, { name: 'faster' })).toMatchObject({ name: 'faster', description: 'new' })
  expect(await types.update(admin, id, { name: 'faster', isPublic: false })).toMatchObject({ isPublic: false })
  expect(await types.get(admin, id)).toMatchObject({ name: 'faster', description: 'new', extraSpecs: { k: 'v' } })
  await expect(types.update(admin, id, { name: 'slow' })).rejects.toThrow('Volume Type slow already exists.')
  expect((await types.get(admin, id)).name).toBe('faster')
})

describe('a private type', () => {
  async function withPrivateType() {
    const { services } = await createHarness()
    const { id } = await services.types.create(admin, request('private', false))
    const names = async (
      context: typeof member,
      scope: 'public' | 'private' | 'all',
      filters: Record<string, Record<string, string>> = {},
    ) => (await services.types.list(context, { ...everything, filters }, scope)).items.map(({ name }) => name)
    return { services, id, names }
  }

  it('is for administrators only, until a project is given access', async () => {
    const { services, id, names } = await withPrivateType()
    expect(await outcome(services.types.get(member, id))).toBe('VolumeTypeNotFound')
    expect(await outcome(services.volumes.create(member, newVolume({ volumeType: 'private' })))).toBe(
      'VolumeTypeNotFoundByName',
    )
    expect(await outcome(services.volumes.create(member, newVolume({ volumeType: id })))).toBe('VolumeTypeNotFound')
    for (const scope of ['public', 'private', 'all'] as const) {
      expect(await names(member, scope)).toEqual(['__DEFAULT__'])
    }
    await services.types.addAccess(admin, id, member.projectId)
    expect((await services.types.get(member, id)).name).toBe('private')
    expect(await names(member, 'public')).toEqual(['private', '__DEFAULT__'])
    expect(await names(stranger, 'public')).toEqual(['__DEFAULT__'])
    const volume = await services.volumes.create(member, newVolume({ volumeType: 'private' }))
    expect(volume.volumeTypeId).toBe(id)
    await services.types.removeAccess(admin, id, member.projectId)
    expect(await outcome(services.types.get(member, id))).toBe('VolumeTypeNotFound')
  })

  it('is listed for administrators as they ask', async () => {
    const { services, id, names } = await withPrivateType()
    expect(await names(admin, 'public')).toEqual(['__DEFAULT__'])
    expect(await names(admin, 'private')).toEqual(['private'])
    expect(await names(admin, 'all')).toEqual(['private', '__DEFAULT__'])
    expect(await names(admin, 'all', { extra_specs: { k: 'v' } })).toEqual(['private'])
    expect(await names(admin, 'all', { extra_specs: { k: 'w' } })).toEqual([])
    await services.types.addAccess(admin, id, admin.projectId)
    expect(await names(admin, 'public')).toEqual(['private', '__DEFAULT__'])
  })

  it('keeps a list of projects, which a public type has not', async () => {
    const { services, id } = await withPrivateType()
    const { types } = services
    for (const project of ['p2', 'p1']) await types.addAccess(admin, id, project)
    expect(await types.listAccess(admin, id)).toEqual(['p2', 'p1'])
    await expect(types.addAccess(admin, id, 'p1')).rejects.toThrow(
      `Volume type access for ${id} / p1 combination already exists.`,
    )
    await types.removeAccess(admin, id, 'p2')
    await expect(types.removeAccess(admin, id, 'p2')).rejects.toThrow(
      `Volume type access not found for ${id} / p2 combination.`,
    )
    const { id: open } = await types.getDefault(admin)
    await expect(types.listAccess(admin, open)).rejects.toThrow('not available for public volume types')
    expect(await outcome(types.addAccess(admin, open, 'p1'))).toBe('InvalidVolumeType')
    expect(await outcome(types.removeAccess(admin, open, 'p1'))).toBe('InvalidVolumeType')
    await types.delete(admin, id)
  })
})

describe('extra specs', () => {
  it('are written beside each other while no volume has the type', async () => {
    const harness = await createHarness()
    const { types } = harness.services
    const { id } = await types.create(admin, request('fast'))
    const specs = async () => (await types.get(admin, id)).extraSpecs
    await types.addSpecs(admin, id, { a: '1', b: '2' })
    await types.setSpec(admin, id, 'a', '3')
    await types.removeSpec(admin, id, 'k')
    expect(await specs()).toEqual({ a: '3', b: '2' })
    await expect(types.removeSpec(admin, id, 'k')).rejects.toThrow(`Volume Type ${id} has no extra specs with key k.`)
    await types.addSpecs(admin, id, { multiattach: '<is> True', a: '4' })
    await expect(types.setSpec(admin, id, 'cacheable', '<is> True')).rejects.toThrow(
      'cacheable cannot be set with multiattach.',
    )
    await types.removeSpec(admin, id, 'a')
    await types.removeSpec(admin, id, 'b')
    await availableVolume(harness, { volumeType: id })
    for (const change of [
      () => types.addSpecs(admin, id, { x: 'y' }),
      () => types.setSpec(admin, id, 'multiattach', '<is> False'),
      () => types.removeSpec(admin, id, 'multiattach'),
    ]) {
      await expect(change()).rejects.toThrow('Volume Type is currently in use.')
    }
    expect(await specs()).toEqual({ multiattach: '<is> True' })
  })

  it('make multiattach volumes of exactly <is> True, and bound sizes only with a number', async () => {
    const harness = await createHarness()
    const { types, volumes } = harness.services
    await types.create(admin, request('shared', true, { multiattach: '<is> True' }))
    await types.create(admin, request('not shared', true, { multiattach: '<is> False' }))
    await types.create(
      admin,
      request('sized', true, { 'provisioning:min_vol_size': '2', 'provisioning:max_vol_size': '' }),
    )
    const create = (volumeType: string, sizeGib = 1) => volumes.create(member, newVolume({ volumeType, sizeGib }))
    expect((await create('shared')).multiattach).toBe(true)
    expect((await create('not shared')).multiattach).toBe(false)
    await expect(create('sized')).rejects.toThrow(
      "Invalid input received: Specified volume size of '1' is less than the minimum required size of '2' " +
        "for volume type 'sized'.",
    )
    expect((await create('sized', 2)).sizeGib).toBe(2)
  })

  it('restrict the zones of volumes', async () => {
    const harness = await createHarness()
    const { types, volumes } = harness.services
    await types.create(admin, request('here', true, { 'RESKEY:availability_zones': 'mars, nova' }))
    await types.create(admin, request('there', true, { 'RESKEY:availability_zones': 'mars,venus' }))
    const create = (volumeType: string, availabilityZone: string | null) =>
      volumes.create(member, newVolume({ volumeType, availabilityZone }))
    expect((await create('here', null)).availabilityZone).toBe('nova')
    expect((await create('here', 'nova')).availabilityZone).toBe('nova')
    await expect(create('here', 'mars')).rejects.toThrow("Availability zone 'mars' is invalid.")
    await expect(create('there', null)).rejects.toThrow(
      "Volume type is only supported in these availability zones: ['mars', 'venus']",
    )
    const listed = (zone: string) =>
      types.list(member, { ...everything, filters: { extra_specs: { 'RESKEY:availability_zones': zone } } }, 'public')
    expect((await listed('nova')).items.map(({ name }) => name)).toEqual(['here'])
    expect((await listed('mars')).items.map(({ name }) => name)).toEqual(['there', 'here'])
    expect((await listed('%')).items).toEqual([])
  })
})

it.each([
  { wanted: null, type: undefined, zones: ['b'] },
  { wanted: 'a', type: undefined, zones: ['a'] },
  { wanted: 'x', type: undefined, zones: "Availability zone 'x' is invalid." },
  { wanted: null, type: 'c,a,x', zones: ['a', 'c'] },
  { wanted: 'c', type: 'c, a', zones: ['c'] },
  { wanted: 'b', type: 'c,a', zones: "Availability zone 'b' is invalid." },
  { wanted: 'b', type: 'x', zones: "Volume type is only supported in these availability zones: ['x']" },
  { wanted: null, type: '', zones: 'Volume type is only supported in these availability zones: []' },
])('of the zones a, b and c with preset b, $wanted of a type for $type gives $zones', ({ wanted, type, zones }) => {
  const extraSpecs: Record<string, string> = type === undefined ? {} : { 'RESKEY:availability_zones': type }
  const asked = { asked: wanted, source: null, sourceIs: 'snapshot' } as const
  const settings = { ...TEST_SETTINGS, availabilityZone: 'b' }
  const answer = () => zonesFor(asked, extraSpecs, ['a', 'b', 'c'], settings)
  if (typeof zones === 'string') expect(answer).toThrow(zones)
  else expect(answer()).toEqual(zones)
})

describe('encryption of a type', () => {
  it('is said before there are volumes, and changed only while there are none', async () => {
    const harness = await createHarness()
    const { types, typeEncryption } = harness.services
    const { id } = await types.create(admin, request('secret'))
    expect(await typeEncryption.get(admin, id)).toBeNull()
    expect(await outcome(typeEncryption.update(admin, id, { keySize: 1 }))).toBe('VolumeTypeEncryptionNotFound')
    expect(await outcome(typeEncryption.delete(admin, id))).toBe('VolumeTypeEncryptionNotFound')
    const made = await typeEncryption.create(admin, id, LUKS)
    expect(made).toMatchObject({ ...LUKS, volumeTypeId: id, updatedAt: null })
    await expect(typeEncryption.create(admin, id, LUKS)).rejects.toThrow(
      `Volume type encryption for type ${id} already exists.`,
    )
    await typeEncryption.update(admin, id, { keySize: null, controlLocation: 'back-end' })
    expect(await typeEncryption.get(admin, id)).toMatchObject({
      ...LUKS,
      id: made.id,
      keySize: null,
      controlLocation: 'back-end',
      updatedAt: expect.any(String),
    })
    await typeEncryption.delete(admin, id)
    await availableVolume(harness, { volumeType: id })
    await expect(typeEncryption.create(admin, id, LUKS)).rejects.toThrow('Cannot create encryption specs.')
    await expect(typeEncryption.update(admin, id, LUKS)).rejects.toThrow('Cannot update encryption specs.')
    await expect(typeEncryption.delete(admin, id)).rejects.toThrow('Cannot delete encryption specs.')
    expect(await outcome(typeEncryption.create(admin, 'absent', LUKS))).toBe('VolumeTypeNotFound')
  })

  it('goes with the type, which is not for volumes that are attached several times', async () => {
    const { types, typeEncryption, volumes } = (await createHarness()).services
    const { id } = await types.create(admin, request('secret'))
    await typeEncryption.create(admin, id, LUKS)
    await types.addSpecs(admin, id, { multiattach: '<is> True' })
    await expect(volumes.create(member, newVolume({ volumeType: 'secret' }))).rejects.toThrow(
      'Invalid volume: Multiattach cannot be used with encrypted volumes.',
    )
    await types.delete(admin, id)
    const { id: again } = await types.create(admin, request('secret'))
    expect(await typeEncryption.get(admin, again)).toBeNull()
  })
})

describe('the default type of a project', () => {
  it('is what its volumes get that ask for none', async () => {
    const { types, defaultTypes, volumes } = (await createHarness()).services
    const { id } = await types.create(admin, request('fast', true, {}))
    expect(await outcome(defaultTypes.get(admin, member.projectId))).toBe('VolumeTypeProjectDefaultNotFound')
    expect(await defaultTypes.set(admin, member.projectId, 'fast')).toEqual({
      projectId: member.projectId,
      volumeTypeId: id,
    })
    expect((await types.getDefault(member)).id).toBe(id)
    expect((await types.getDefault(stranger)).name).toBe('__DEFAULT__')
    expect((await volumes.create(member, newVolume())).volumeTypeName).toBe('fast')
    expect((await volumes.create(stranger, newVolume())).volumeTypeName).toBe('__DEFAULT__')
    expect((await volumes.create(member, newVolume({ volumeType: '__DEFAULT__' }))).volumeTypeName).toBe('__DEFAULT__')
    await defaultTypes.set(admin, 'another', id)
    await defaultTypes.set(admin, member.projectId, (await types.getDefault(stranger)).id)
    expect((await defaultTypes.list(admin)).map(({ projectId }) => projectId)).toEqual([member.projectId, 'another'])
    await defaultTypes.unset(admin, member.projectId)
    await defaultTypes.unset(admin, member.projectId)
    expect(await outcome(defaultTypes.get(admin, member.projectId))).toBe('VolumeTypeProjectDefaultNotFound')
  })

  it('is not deleted, must exist, and must be the project’s to use', async () => {
    const { types, defaultTypes, volumes } = (await createHarness()).services
    const { id } = await types.create(admin, request('private', false, {}))
    await expect(defaultTypes.set(admin, member.projectId, 'absent')).rejects.toThrow(
      'Volume type with name absent could not be found.',
    )
    await defaultTypes.set(admin, member.projectId, id)
    await expect(types.delete(admin, id)).rejects.toThrow(
      `The volume type ${id} is a default volume type and cannot be deleted.`,
    )
    expect(await outcome(volumes.create(member, newVolume()))).toBe('VolumeTypeNotFound')
    await types.addAccess(admin, id, member.projectId)
    expect((await volumes.create(member, newVolume())).volumeTypeName).toBe('private')
  })

  it('says what is wrong when the type of the settings was renamed', async () => {
    const { types, volumes } = (await createHarness()).services
    await types.update(admin, (await types.getDefault(admin)).id, { name: 'renamed' })
    await expect(volumes.create(member, newVolume())).rejects.toThrow(
      'The request cannot be fulfilled as the default volume type __DEFAULT__ cannot be found.',
    )
  })
})

it('that is deleted at the same time is not found by whoever gives access to it, or makes it a default', async () => {
  const { services } = await createHarness()
  const make = (name: string) =>
    services.types.create(admin, { name, description: null, isPublic: false, extraSpecs: {} })
  const one = await make('one')
  const answers = [services.types.addAccess(admin, one.id, 'project'), services.types.delete(admin, one.id)].map(
    outcome,
  )
  expect(['done done', 'VolumeTypeNotFound done']).toContain((await Promise.all(answers)).join(' '))
})

describe.runIf(runsPostgres)('a type whose deletion is being written on PostgreSQL', () => {
  const USES: Record<string, (harness: Harness, id: string, name: string) => Promise<unknown>> = {
    'access to it': ({ services }, id) => services.types.addAccess(admin, id, 'project'),
    'a default of it': ({ services }, id) => services.defaultTypes.set(admin, 'project', id),
    'a quota of it': ({ services }, _, name) => services.quotas.update(admin, 'project', { [`volumes_${name}`]: 1 }),
    'a quota of a class of it': ({ services }, _, name) =>
      services.quotas.updateClass(admin, 'default', { [`volumes_${name}`]: 1 }),
  }
  it.each(Object.keys(USES))('is waited for, and not found, by %s', async (use) => {
    const harness = await createHarness({ dialect: 'PostgreSQL' })
    const { id, name } = await harness.services.types.create(admin, {
      name: 'going',
      description: null,
      isPublic: false,
      extraSpecs: {},
    })
    const trx = await harness.db.transaction()
    await trx('volume_types').where({ id }).forUpdate()
    const answer = outcome(USES[use]!(harness, id, name))
    const waiting = "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    await vi.waitFor(async () => expect((await harness.db.raw(waiting)).rows).toHaveLength(1), { timeout: 20_000 })
    await trx('volume_types').where({ id }).delete()
    await trx.commit()
    expect(['VolumeTypeNotFound', 'InvalidInput']).toContain(await answer)
  })
})

it('asks the policy for each action', async () => {
  const { types, typeEncryption, defaultTypes, quotas } = (await createHarness()).services
  const asked: string[] = []
  const refused = new Error('refused')
  const context = contextOf({
    authorize: (rule, { projectId }) => {
      asked.push(`${rule} ${projectId}`)
      throw refused
    },
  })
  const attempts = [
    () => types.list(context, everything, 'public'),
    () => types.get(context, 't'),
    () => types.getDefault(context),
    () => types.create(context, request('t')),
    () => types.update(context, 't', {}),
    () => types.delete(context, 't'),
    () => types.addSpecs(context, 't', {}),
    () => types.setSpec(context, 't', 'k', 'v'),
    () => types.removeSpec(context, 't', 'k'),
    () => types.addAccess(context, 't', 'p'),
    () => types.removeAccess(context, 't', 'p'),
    () => types.listAccess(context, 't'),
    () => typeEncryption.get(context, 't'),
    () => typeEncryption.create(context, 't', LUKS),
    () => typeEncryption.update(context, 't', {}),
    () => typeEncryption.delete(context, 't'),
    () => defaultTypes.list(context),
    () => defaultTypes.get(context, 'p'),
    () => defaultTypes.set(context, 'p', 't'),
    () => defaultTypes.unset(context, 'p'),
    () => quotas.get(context, 'p'),
    () => quotas.usage(context, 'p'),
    () => quotas.defaults(context, 'p'),
    () => quotas.update(context, 'p', {}),
    () => quotas.reset(context, 'p'),
    () => quotas.getClass(context, 'c'),
    () => quotas.updateClass(context, 'c', {}),
  ]
  for (const attempt of attempts) await expect(attempt()).rejects.toBe(refused)
  expect(asked).toEqual([
    'volume_extension:type_get_all project',
    'volume_extension:type_get project',
    'volume_extension:type_get project',
    'volume_extension:type_create project',
    'volume_extension:type_update project',
    'volume_extension:type_delete project',
    'volume_extension:types_extra_specs:create project',
    'volume_extension:types_extra_specs:update project',
    'volume_extension:types_extra_specs:delete project',
    'volume_extension:volume_type_access:addProjectAccess project',
    'volume_extension:volume_type_access:removeProjectAccess project',
    'volume_extension:volume_type_access:get_all_for_type project',
    'volume_extension:volume_type_encryption:get project',
    'volume_extension:volume_type_encryption:create project',
    'volume_extension:volume_type_encryption:update project',
    'volume_extension:volume_type_encryption:delete project',
    'volume_extension:default_get_all project',
    'volume_extension:default_get p',
    'volume_extension:default_set_or_update p',
    'volume_extension:default_unset p',
    'volume_extension:quotas:show p',
    'volume_extension:quotas:show p',
    'volume_extension:quotas:show p',
    'volume_extension:quotas:update p',
    'volume_extension:quotas:delete p',
    'volume_extension:quota_classes:get project',
    'volume_extension:quota_classes:update project',
  ])
})
