import { expect, it } from 'vitest'
import { BusyWatch } from '../../src/runtime/busy-watch.ts'
import { HandClock } from '../tools/hand-clock.ts'

function setUp() {
  const hand = new HandClock()
  const told: boolean[] = []
  const watch = new BusyWatch(hand.clock, (isBusy) => told.push(isBusy))
  const requests = (count: number) => {
    for (let sent = 0; sent < count; sent++) watch.count()
    hand.pass(100)
  }
  return { hand, told, watch, requests }
}

it('tells at the first tenth of a second with several requests, and once', () => {
  const { told, requests } = setUp()
  requests(2)
  expect(told).toEqual([true])
  for (let beat = 0; beat < 20; beat++) requests(1000)
  expect(told).toEqual([true])
})

it('takes one now and then for quiet', () => {
  const { told, requests } = setUp()
  for (let beat = 0; beat < 100; beat++) requests(1)
  expect(told).toEqual([])
})

it('waits half a second for more', () => {
  const { told, requests } = setUp()
  for (let times = 0; times < 3; times++) {
    requests(2)
    for (let beat = 0; beat < 4; beat++) requests(1)
  }
  expect(told).toEqual([true])
  requests(0)
  expect(told).toEqual([true, false])
  requests(2)
  expect(told).toEqual([true, false, true])
})

it('tells nothing any more when it is stopped', () => {
  const { told, watch, requests } = setUp()
  watch.stop()
  requests(100)
  requests(100)
  expect(told).toEqual([])
})
