import { describe, expect, test } from 'vitest'
import { authorize, isAllowed, RULES } from '../../src/api/policy.ts'
import { ROUTES } from '../../src/api/v3/index.ts'

const own = { projectId: 'p1' }
const foreign = { projectId: 'p2' }
const caller = (...roles: string[]) => ({ projectId: 'p1', roles })

describe('checks', () => {
  test.each([
    ['volume:get', ['reader'], own, true],
    ['volume:get', ['member'], own, true],
    ['volume:get', ['reader'], foreign, false],
    ['volume:get', ['admin'], foreign, true],
    ['volume:get', [], own, false],
    ['volume:get', ['service'], own, false],
    ['volume:create', ['reader'], own, false],
    ['volume:create', ['member'], own, true],
    ['volume:create', ['member'], foreign, false],
    ['volume:force_delete', ['member'], own, false],
    ['volume:force_delete', ['admin'], foreign, true],
  ])('%s for %j on %j: %s', (rule, roles, target, allowed) => {
    expect(isAllowed(rule, caller(...roles), target)).toBe(allowed)
  })

  test('authorize names the rule', () => {
    expect(() => authorize('volume:delete', caller('reader'), own)).toThrow(
      "Policy doesn't allow volume:delete to be performed.",
    )
  })

  test('an unknown rule is a mistake of ours, not a permission', () => {
    expect(() => isAllowed('volume:nonsense', caller('admin'), own)).toThrow('no such policy rule')
    expect(() => isAllowed('toString', caller('admin'), own)).toThrow('no such policy rule')
  })
})

test('every route of an object or a list names its rule; the few that do not are named here', () => {
  const free = ROUTES.filter(({ policy }) => policy === null).map(({ operation }) => operation)
  expect(free).toEqual([
    'list_attachments',
    'list_attachments_detail',
    'show_attachment',
    'list_resource_filters',
    'list_group_types', // upstream has no rule for who may see them
    'show_default_group_type',
    'show_group_type',
    'show_limits',
    'list_availability_zones',
    'list_extensions',
    'show_extension',
  ])
  for (const { policy } of ROUTES) if (policy !== null) expect(RULES).toHaveProperty([policy])
})
