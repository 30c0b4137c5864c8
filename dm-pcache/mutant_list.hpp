/* SPDX-License-Identifier: GPL-2.0 */
/*
 * mutant_list.hpp - the deliberate bugs (mutants.hpp): PCACHE_MUTANT(name, lessons, what is wrong,
 * killer).
 *
 * `lessons`: the numbers of what went wrong elsewhere (Documentation/testing.md, "Mutants") that it
 * stands for; "-": of none. `killer`: the unit tests that see it, as a filter of GoogleTest's, or
 * "sim". One line per mutant in the table of `make mutants`, which reads this file.
 */

/* two-slot records */
PCACHE_MUTANT(one_slot_only, "1", "a two-slot record is updated in slot 0 alone",
              "TwoSlotTest.AnUpdateLeavesTheSameBytesInBothSlots")
PCACHE_MUTANT(newest_slot_first, "1", "an update begins with the slot that holds the newest copy",
              "TwoSlotTest.TheNewestCopyStandsUntilTheOtherSlotIsDurable")
PCACHE_MUTANT(slot_without_fence, "1", "a slot is stored and not fenced",
              "TwoSlotTest.ACutAtAnyStoreOfAnUpdateLeavesTheOldOrTheNewValue")
PCACHE_MUTANT(slots_in_one_fence, "1", "both slots are stored in front of one fence",
              "TwoSlotTest.TheNewestCopyStandsUntilTheOtherSlotIsDurable")
PCACHE_MUTANT(wrong_stride, "1", "slot 1 is looked for right behind slot 0",
              "Activate.EverythingThatWasWornIsSettled")
PCACHE_MUTANT(seq_not_serial, "1, 44", "sequence numbers are compared as if they did not wrap",
              "TwoSlotTest.TheNewerOfTwoGoodSlotsCounts")
PCACHE_MUTANT(slot_crc_not_checked, "1", "a slot with a bad crc counts",
              "TwoSlotTest.ABadSlotIsIgnoredWhicheverItIs")
PCACHE_MUTANT(bad_slot_left, "1", "a bad slot is not rewritten from the good one",
              "TwoSlotTest.CompleteCopiesTheNewestSequenceNumberIncluded")
PCACHE_MUTANT(bad_page_stored_to, "15",
              "a page that cannot be read is stored to through the mapping",
              "TwoSlotTest.APoisonedPageIsRewrittenByABlockWriteAndKeepsTheRest")
PCACHE_MUTANT(page_mates_forgotten, "15",
              "a block write of one record's page leaves the records beside it out",
              "InfoPages.AfterARepairedPageEveryRecordStandsInBothPages")
PCACHE_MUTANT(live_slot_counts_on, "1, 44",
              "the live slot counts on until the dead one seems newer",
              "InfoPages.ADeadSlotNeverWinsHoweverManyUpdatesTheOtherOneGets")
PCACHE_MUTANT(dead_slot_forgotten, "1, 44",
              "the live slot goes on by two in each life until the dead one seems newer",
              "InfoPages.ADeadSlotThatCanBeReadNeverWins*")
PCACHE_MUTANT(clean_stop_kept, "1", "activation leaves CLEAN_STOP set",
              "LiveMetadata.ACleanStopIsReadBackAndClearedByTheNextActivationInBothSlots")
PCACHE_MUTANT(setting_not_announced, "44",
              "cache_info changes without its coming crc in the extended superblock",
              "LiveMetadata.ASettingCutAnywhereIsOldOrNewAndTheMediaStaysOurs")
PCACHE_MUTANT(safe_tail_behind, "1", "GC leaves safe_tail where it was",
              "Rules.SafeTailFollowsKeyTail")

/* the log on media */
PCACHE_MUTANT(spare_not_zeroed, "2, 52", "a log segment is linked as it is",
              "Rules.ANewLogSegment*")
PCACHE_MUTANT(spare_zeroed_in_part, "2, 52", "only the first half of a log segment is zeroed",
              "Rules.ANewLogSegment*")
PCACHE_MUTANT(head_not_zeroed, "2", "activation leaves what lies behind the head",
              "Activate.EverythingThatWasWornIsSettled")
PCACHE_MUTANT(record_without_fence, "2, 47", "a record is stored and not fenced",
              "Rules.NothingGoesBy*")
PCACHE_MUTANT(link_not_kept, "3, 53", "the extended superblock is not told of a new log segment",
              "Rules.ANewLogSegment*")
PCACHE_MUTANT(limit_not_ahead, "43", "limit is not raised for a new log segment",
              "Rules.ANewLogSegment*")
PCACHE_MUTANT(limit_not_raised, "43", "activation leaves limit: record numbers are used again",
              "Activate.ACacheOfMainlinesGetsMarksAndAnExtension")
PCACHE_MUTANT(start_follows_last, "43", "START takes the number after the last one read",
              "Activate.ActivatingTwiceFindsTheSame")
PCACHE_MUTANT(no_room_for_last, "2, 13", "a kset may take the room of the LAST record", "sim")
PCACHE_MUTANT(staged_reversed, "39", "the keys of a shard enter the log in the wrong order",
              "Rules.OfTwoStagedWrites*")
PCACHE_MUTANT(number_gap_read_over, "2, 3",
              "a record that does not continue the one before is read on to",
              "LogJudge.DOnly_ALaterRecordStandsRightThere")
PCACHE_MUTANT(newer_record_read, "14", "record flags of a newer driver are ignored",
              "LogJudge.UnknownFlagsOfARecordAreANewerDrivers")

/* damage, each proof by itself */
PCACHE_MUTANT(proof_a_ignored, "3, 53", "dirty_tail not met on the walk is no damage",
              "LogJudge.AOnly*")
PCACHE_MUTANT(proof_b_ignored, "3, 53", "an end that cannot be read is no damage",
              "LogJudge.BOnly*")
PCACHE_MUTANT(proof_c_ignored, "3, 53", "an end in front of the last clean stop is no damage",
              "LogJudge.COnly*")
PCACHE_MUTANT(proof_d_ignored, "3, 53", "a later record behind the end is no damage",
              "LogJudge.DOnly*")
PCACHE_MUTANT(proof_e_ignored, "3, 53", "a linked segment that was not met is no damage",
              "LogJudge.EOnly*")
PCACHE_MUTANT(limit_not_asked, "43, 53", "a number that was never used is taken for proof",
              "LogJudge.NotDamage_ANumberAtOrBehindLimitWasNeverUsed")
PCACHE_MUTANT(mark_not_asked, "44", "media that mainline used since is taken for ours",
              "Inspect.OursNeedsTheCrcOfCacheInfoAndTheMark")

/* activation and formatting */
PCACHE_MUTANT(caches_trusted, "49",
              "after a panic what was read is not written back from the CPU caches",
              "Activate.WhatOnlyCpuCachesHeldAfterAPanicIsDurableAfterwards")
PCACHE_MUTANT(tails_before_generations, "5", "activation stores the tails before the generations",
              "Activate.TheStepsComeInTheirOrder")
PCACHE_MUTANT(rewrite_not_vouched, "2, 15",
              "the page of the head is rewritten while nothing shows that a cut has made the log "
              "shorter",
              "BlockWrites.ACutInThatOfTheHeadsPageIsNotTaken*")
PCACHE_MUTANT(rewrite_not_proved, "2, 15",
              "the page of the head is rewritten although the newest record has no number",
              "BlockWrites.AHeadsPageWhoseLoss*")
PCACHE_MUTANT(whole_page_given_up, "15",
              "nothing of a page known to be bad is loaded, though badblocks names a part of it",
              "BadLines.OfAPageKnownToBeBad*")
PCACHE_MUTANT(page_of_log_not_kept, "15",
              "what was read of a page of the log goes with the page when a line of it is bad",
              "BadLines.WhatWasReadOfAnUnmappedPage*")
PCACHE_MUTANT(settings_forgotten, "12",
              "a format that was cut forgets the settings of the cache that was given up",
              "LostCacheInfo.AFormatThatWasCut*")
PCACHE_MUTANT(cache_info_missed, "11", "without cache_info a cache is refused",
              "LostRecords.WithoutCacheInfo*")
PCACHE_MUTANT(ours_by_key_tail_alone, "44",
              "media whose key_tail cannot be read is taken for mainline's",
              "LostRecords.WithoutKeyTailTheMark*")
PCACHE_MUTANT(read_only_not_flushed, "49",
              "a cache that is read-only after a panic relies on CPU caches",
              "LostRecords.WhatAReadOnlyCacheReliesOn*")
PCACHE_MUTANT(generation_not_proved, "5", "a key does not prove that the newer generation was lost",
              "Inspect.AHigherSegGenProvesThatTheNewerGenerationWasLost")
PCACHE_MUTANT(stale_dirty_accepted, "5", "a dirty key that is stale is no damage",
              "Inspect.ADirtyKeyThatIsStaleIsDamage")
PCACHE_MUTANT(stale_front_kept, "5", "a GC pass that was cut is not ended at activation",
              "Inspect.KeyTailGoesBehindTheLastStaleRecordInFrontOfDirtyTail")
PCACHE_MUTANT(redo_not_shortened, "4, 5",
              "where dirty_tail is lost the redo begins in front of stale keys",
              "Inspect.WhereDirtyTailIsLostTheRedoBeginsBehindTheLastStaleKey")
PCACHE_MUTANT(stale_key_skipped, "4",
              "replay passes over a stale key: an older one of its range comes back",
              "Rules.AStaleKeyHides*")
PCACHE_MUTANT(stale_key_counted_in, "5", "replay counts a stale key as holding its segment",
              "Rules.AStaleKeyHoldsNoSegment")
PCACHE_MUTANT(stale_key_counted_out, "5", "GC counts a stale key as having held its segment",
              "Rules.AStaleKeyThatGcPasses*")
PCACHE_MUTANT(activation_not_flushed, "36", "activation does not FLUSH the backing device",
              "LifeCycle.ActivationOverABackingDeviceThatFailsItsFlushCanBeTriedAgain")
PCACHE_MUTANT(backing_not_compared, "-",
              "a backing device that was changed behind a clean stop is taken",
              "DiskRecord.AnUnchanged*")
PCACHE_MUTANT(disk_mark_not_asked, "44",
              "the disk record counts although mainline moved dirty tail",
              "DiskRecord.CountsOnlyWhere*")
PCACHE_MUTANT(former_crc_not_asked, "65", "the disk record counts behind a driver that knew none",
              "DiskRecord.CountsOnlyWhere*")
PCACHE_MUTANT(disk_unjudged_left, "44", "a disk record that does not count is left as it is",
              "DiskRecord.WhatDoesNotCountIsEmpty*")
PCACHE_MUTANT(disk_emptied_before_drop, "-",
              "the disk record is emptied before the keys of a changed device are dropped",
              "DiskRecord.AChangedDeviceIsNoticedUntilAllKeysHaveGone*")
PCACHE_MUTANT(disk_not_emptied, "-", "the disk record stands while the cache writes",
              "DiskRecord.NothingIsKnown*")
PCACHE_MUTANT(disk_lines_trusted, "49", "after a panic the disk record is left in the CPU caches",
              "DiskRecord.AfterAPanic*")
PCACHE_MUTANT(disk_older_slot_left, "1", "an older slot of the disk record is left as it is",
              "DiskRecord.AfterAPanic*:DiskRecord.AnOlderSlot*")
PCACHE_MUTANT(disk_known_by_one_slot, "60", "blocks are known though one slot cannot be stored",
              "DiskRecord.NothingIsKnownWhileOneSlotIsDead*")
PCACHE_MUTANT(disk_zero_hash_compared, "-", "a known block with hash 0 needs to be read to differ",
              "DiskRecord.ABlockWithHash0*")
PCACHE_MUTANT(disk_beyond_table, "-", "blocks beyond the end of the table are known",
              "DiskRecord.OnlyWhole*")
PCACHE_MUTANT(noflush_stop_learns, "10", "a noflush suspend asks the backing device for its blocks",
              "ChangedDisk.ANoflush*")
PCACHE_MUTANT(resume_not_compared, "-", "a resume does not look at the backing device",
              "ChangedDisk.AResume*")
PCACHE_MUTANT(changed_clean_served, "-", "clean keys are served over a device that was changed",
              "DiskRecord.ChangedBackingReadOnly*")
PCACHE_MUTANT(rescue_leaves_disk_record, "-", "accept_loss writes while blocks are known",
              "DiskRecord.AcceptLoss*")
PCACHE_MUTANT(rescue_forgets_change, "-",
              "a cut in accept_loss makes a changed device the right one", "DiskRecord.AcceptLoss*")
PCACHE_MUTANT(format_leaves_disk_record, "12", "formatting leaves a former life's disk record",
              "DiskRecord.Formatting*")
PCACHE_MUTANT(bad_pages_not_marked, "15", "replay does not look at the pages known to be bad",
              "Poison.CleanDataOnPagesKnownToBeBad*")
PCACHE_MUTANT(damage_taken_for_new, "11", "both copies of cache_info bad: the device is formatted",
              "Inspect.BothCopiesOfCacheInfoBadAreNeverANewCache")
PCACHE_MUTANT(blank_not_checked, "11", "what is not blank is formatted",
              "FormatCache.OneByteAnywhere*")
PCACHE_MUTANT(generations_restart, "12", "formatting begins with generation 1 again",
              "FormatCache.KeysOfAFormerLifeAreStale")
PCACHE_MUTANT(former_log_left, "12", "formatting leaves the records of a former life",
              "FormatCache.TheLogOfAFormerLifeIsZeroedWhereTheNewOneBegins")
PCACHE_MUTANT(superblock_too_early, "12", "formatting stores the superblock first",
              "FormatCache.TheStepsComeInTheirOrder")

/* requests */
PCACHE_MUTANT(data_without_fence, "45", "a key is staged before its data is fenced",
              "Rules.DataIsFenced*")
PCACHE_MUTANT(fence_on_another_cpu, "45", "between data and fence the CPU may change", "sim")
PCACHE_MUTANT(map_sleeps, "42", "map() may sleep for memory", "sim")
PCACHE_MUTANT(waiters_overtaken, "17", "a write does not queue behind those that wait",
              "Space.AWriteThatWasTriedInVain*")
PCACHE_MUTANT(all_queue_up, "17", "a write queues behind those that wait though nothing is short",
              "Space.AWriteGoesItsOwnWay*")
PCACHE_MUTANT(waiters_reversed, "17", "the last one that waits is served first",
              "Cache.WritesWaitInOrder*")
PCACHE_MUTANT(pushed_back_unasked, "41",
              "a waiting write is given back though the noflush suspend was interrupted",
              "LifeCycle.AnInterruptedNoflush*")
PCACHE_MUTANT(staged_not_told, "17", "the tickets of a write come back when a timer says so",
              "Space.AWriteThatWaitsForTickets*")
PCACHE_MUTANT(commit_by_the_worker, "19", "a work waits for the commit worker",
              "Space.AWorkNeverWaitsForAnotherOneToCommitWhatItJudges")
PCACHE_MUTANT(memory_under_lock, "19, 20", "a shard is locked while the index waits for memory",
              "Cache.DirtyDataSurvivesRemoval")
PCACHE_MUTANT(waiter_not_woken, "17", "nobody tells those that wait that space came back", "sim")
PCACHE_MUTANT(freed_not_told, "17", "a segment that was freed is not told of", "sim")
PCACHE_MUTANT(credit_never_given, "17", "paced writes get no credit for what was written back",
              "Space.WhatHasLanded*")
PCACHE_MUTANT(pacing_never_ends, "17", "pacing goes on when nothing can bring credit", "sim")
PCACHE_MUTANT(heads_unbounded, "18", "each CPU has a data head, however small the cache",
              "Heads.PinAnEighthOfTheCacheAtMost")
PCACHE_MUTANT(reserve_given_away, "13", "data takes the segments that are reserved for the log",
              "Segments.DataHeadsLeaveTheLogItsReserve")
PCACHE_MUTANT(log_room_not_asked, "6, 13", "a write is let in without room for its key in the log",
              "Tickets.NoneWithoutRoomInTheLogUntilThereIsASpare")
PCACHE_MUTANT(bad_segment_reused, "15", "a segment that cannot be read throughout gets new data",
              "Segments.ABadOne*")
PCACHE_MUTANT(write_marked_clean, "50", "the key of a write is CLEAN",
              "Cache.DirtyDataSurvivesRemoval")
PCACHE_MUTANT(crc_of_another_pass, "38", "the crc is that of another look at the pages of the bio",
              "DataCrc.OwnerWhoChangesPagesMeanwhileNeverMakesABadCrc")
PCACHE_MUTANT(crc_not_verified, "-", "data with a wrong crc is given out",
              "DataCrc.ChangedBitInDirtyDataIsAnErrorOfThatKeyAlone")
PCACHE_MUTANT(key_summed_per_piece, "-", "a read sums a key once for each piece that it has of it",
              "LongKeys.AReadSumsEachKeyOnce")
PCACHE_MUTANT(evicted_key_is_bad, "-",
              "a key that was evicted while it was looked at is taken for unreadable",
              "ChecksumsTest.AKeyThat*")
PCACHE_MUTANT(summed_in_map, "-", "map() sums keys of any length",
              "LongKeys.MapSumsNoMoreThanItMay")
PCACHE_MUTANT(nowait_read_waits, "-", "a NOWAIT read waits for the worker that sums",
              "LongKeys.ANowaitReadThatWouldGoToAWorkerEndsWithAgain")
PCACHE_MUTANT(verified_per_piece, "-", "write-back sums a key once for each piece of it",
              "LongKeys.WriteBackSumsEachKeyOnce")

/* FLUSH */
PCACHE_MUTANT(flush_overtakes_leader, "46",
              "a FLUSH with nothing staged does not wait for records under way",
              "Rules.NothingGoesBy*")
PCACHE_MUTANT(flush_ends_early, "46", "a FLUSH ends before its record is stored",
              "Rules.NothingGoesBy*")
PCACHE_MUTANT(epoch_not_marked, "8, 48", "a FLUSH does not bind the next record to EPOCH",
              "Rules.TheRecordBehindAFlush*")
PCACHE_MUTANT(fua_not_committed, "46", "a FUA write does not wait for its record",
              "Rules.AFuaWrite*")
PCACHE_MUTANT(read_only_flush_at_once, "46",
              "a FLUSH on the way into read-only ends before what it covers is in a record",
              "Promise.AFlushOnTheWay*")
PCACHE_MUTANT(given_up_forgotten, "46",
              "a FLUSH succeeds although the key of a completed write was given up",
              "LostPage.NothingIsStoredToOneThatGc*")
PCACHE_MUTANT(log_closes_in_silence, "46, 28", "a log that has closed tells nobody",
              "Promise.BehindKeys*")
PCACHE_MUTANT(lost_page_stored_to, "15, 42", "the log stores to a page that it was told is lost",
              "LostPage.NothingIsStoredTo*")
PCACHE_MUTANT(log_waits_without_gc, "28", "the log waits for a segment that nobody will free",
              "LogWithoutSegments.*")
PCACHE_MUTANT(damage_overwritten, "15, 28", "a resume goes on over damage that was found meanwhile",
              "LostPage.AResume*")
PCACHE_MUTANT(setting_stored_behind, "28",
              "a setting is stored behind the word that nothing is stored any more",
              "LostPage.ASetting*")

/* fills */
PCACHE_MUTANT(fill_sent_in_epoch, "42", "the read of a fill is sent inside map()'s epoch",
              "Fills.AMissIsReadOnceAndIsAHitFromThenOn")
PCACHE_MUTANT(fill_not_cancelled, "37", "a write does not cancel the fill of its range",
              "Fills.AFillThatIsOlder*")
PCACHE_MUTANT(fill_marked_dirty, "36", "the key of a fill is not CLEAN",
              "Fills.WhatIsCachedIsCleanAndNeverWrittenBack")
PCACHE_MUTANT(fill_without_fence, "45", "a fill is staged before its data is fenced",
              "Fills.APowerCutAtAnyFenceOfAFillLeavesNoOldData")
PCACHE_MUTANT(fill_over_lost, "50, 51", "a fill puts old data where dirty data was lost",
              "Lookup.NothingIsCachedInHolesAndGhostsOnly")
PCACHE_MUTANT(bio_used_after_end, "38", "a fill ends its bio before it has copied",
              "Fills.AMissIsReadOnceAndIsAHitFromThenOn")

/* write-back */
PCACHE_MUTANT(flush_result_ignored, "7", "dirty tail moves although the backing FLUSH failed",
              "Rules.DirtyTailMovesBehindAFlush*")
PCACHE_MUTANT(flush_left_out, "7", "dirty tail moves without a backing FLUSH",
              "Rules.DirtyTailMovesBehindAFlush*")
PCACHE_MUTANT(write_error_ignored, "7", "dirty tail moves although a backing write failed",
              "Rules.DirtyTailMovesBehindAWrite*")
PCACHE_MUTANT(cut_batch_counts, "7, 41",
              "a batch that a suspend has cut short counts once the suspend is undone",
              "LifeCycle.ABatchThatASuspendHasCut*")
PCACHE_MUTANT(
    cut_forgotten, "7, 41",
    "what a suspend that came between gathering and sending has cut short counts once the "
    "suspend is undone",
    "WriteBack.WhatIsHaltedBetweenGatheringAndSending*")
PCACHE_MUTANT(tail_before_data, "47", "dirty tail moves before the batch is sent",
              "Rules.DirtyTailWaits*")
PCACHE_MUTANT(epochs_merged, "8, 48", "a batch takes keys of several flush epochs",
              "Rules.WriteBackFlushesBetweenTwoEpochs")
PCACHE_MUTANT(unnumbered_merged, "8, 48", "records of mainline's make one epoch",
              "Rules.WriteBackFlushesBetweenTheRecords*")
PCACHE_MUTANT(write_back_too_early, "47", "write-back goes by a record that is not fenced",
              "Rules.NothingGoesBy*")
PCACHE_MUTANT(clean_written_back, "-", "clean keys are written back",
              "Fills.WhatIsCachedIsCleanAndNeverWrittenBack")
PCACHE_MUTANT(batch_sent_again, "-", "one write that failed makes the whole batch go again",
              "WriteBack.AWriteThatFails*")
PCACHE_MUTANT(flush_alone_again, "7", "behind a FLUSH that failed only the FLUSH is repeated",
              "WriteBack.AFlushThatFails*")
PCACHE_MUTANT(write_unbounded, "63", "a write of a batch carries whatever lies side by side",
              "WriteBack.WhatIsInFlight*")
PCACHE_MUTANT(flight_unbounded, "63", "bytes in flight are not counted",
              "WriteBack.WhatIsInFlight*")
PCACHE_MUTANT(gathered_to_the_end, "63", "a batch is gathered to its end though it was halted",
              "WriteBack.ABatchThatIsBeingGathered*")
PCACHE_MUTANT(bad_line_sent, "15", "data is sent without a probe", "Rules.WriteBackSendsNoPage*")
PCACHE_MUTANT(keys_not_kept_apart, "-",
              "with data_crc a batch joins what belongs to different keys",
              "Rules.WithDataCrcNeighbours*")
PCACHE_MUTANT(ranges_not_locked, "35", "writes to one backing sector do not wait for each other",
              "RangeLockTest.AnOverlapping*")

/* data that cannot be read */
PCACHE_MUTANT(part_blocks_served, "-",
              "clean keys that are no whole blocks of the backing device are served",
              "DataCrc/GrownBlocks.CleanKeysThatAreNoWholeBlocks*")
PCACHE_MUTANT(part_blocks_left, "-", "what is left of a block that is ignored in part is served",
              "DataCrc/GrownBlocks.CleanKeysThatAreNoWholeBlocks*")
PCACHE_MUTANT(holes_not_trimmed, "-",
              "what is left of a block around a hole is served if no key is ignored",
              "DataCrc/GrownBlocks.WhatABadLineHas*")
PCACHE_MUTANT(beside_lost_trimmed, "-",
              "what is left of a dirty block that is lost in part is taken for clean",
              "DataCrc/GrownBlocks.DirtyDataBesideALineLost*")
PCACHE_MUTANT(block_not_compared, "-",
              "dirty keys that are no whole blocks of the backing device are accepted",
              "DataCrc/GrownBlocks.DirtyKeysThatAreNoWholeBlocks*")
PCACHE_MUTANT(summed_read_not_awaited, "-",
              "accept_loss gives the cache up while a lane sums a key of it",
              "SummedReads.AcceptLoss*")
PCACHE_MUTANT(unreadable_not_noted, "15, 50",
              "a log segment that could not be read at activation gets data once it is free",
              "UnreadableSegments.ALogSegment*")
PCACHE_MUTANT(kept_page_survives_zeroing, "15",
              "what was kept of a bad page of the log is read in place of a newer record",
              "UnreadableSegments.WhatWasKept*")
PCACHE_MUTANT(summed_read_notes_nothing, "50", "what a summed read could not read gets new data",
              "UnreadableSegments.WhatASummedRead*")
PCACHE_MUTANT(copy_failed_unnoted, "50",
              "what the damage worker could not read gets new data if it is overwritten",
              "UnreadableSegments.WhatTheDamageWorker*")
PCACHE_MUTANT(verdict_outlives_batch, "-", "accept_loss goes by sums verified long ago",
              "AcceptLoss.WhatOnlyTheIndexKnowsIsVerifiedThen*")
PCACHE_MUTANT(new_chain_not_frozen, "-",
              "the chain of a cache that accept_loss has made may change under its readers",
              "AcceptLoss.AChangedChain*")
PCACHE_MUTANT(too_few_segments_served, "15",
              "writes are taken with fewer segments than log, heads and reclaim need",
              "TooFewSegments.*")
PCACHE_MUTANT(recovery_over_budget, "-", "recovery takes what memory the log asks for",
              "DataCrc/RecoveryBudget.TheOldest*")
PCACHE_MUTANT(lost_passed, "50", "dirty tail passes what is lost", "Poison.WhatIsLostIsLost*")
PCACHE_MUTANT(lost_taken_for_clean, "15, 50", "what is lost is read from the backing device",
              "Poison.DirtyDataOnABadLineFailsThatRangeAloneUntilItIsWrittenAnew")
PCACHE_MUTANT(flushed_yet_lost, "50",
              "what a batch has just made durable on the backing device is declared lost",
              "WriteBack.WhatABatchHasFlushed*")
PCACHE_MUTANT(staged_taken_for_clean, "50", "what is only staged is judged as if it were clean",
              "Poison.DirtyDataThatIsOnlyStagedFailsToo")
PCACHE_MUTANT(lost_read_elsewhere, "50", "a read of lost data goes to the backing device",
              "Lookup.LostDataIsNeitherDataNorAHole")
PCACHE_MUTANT(lost_unmapped, "50", "GC takes what is lost out of the index",
              "Poison.GcOfTheOlderKey*")
PCACHE_MUTANT(write_back_of_part_blocks, "15",
              "around a bad line less than a block of the backing device is written back",
              "Poison.OnABackingDeviceOf4KiB*")
PCACHE_MUTANT(rescue_of_part_blocks, "15",
              "around a bad line accept_loss writes less than a block of the backing device",
              "AcceptLoss.OnABackingDeviceOf4KiB*")
PCACHE_MUTANT(given_up_without_superblock, "12",
              "accept_loss says FORMATTING while the superblock cannot be read",
              "AcceptLoss.ACutBehindEachStepWithoutASuperblock*")
PCACHE_MUTANT(bad_pages_forgotten, "15",
              "accept_loss given again makes nothing good that only the first attempt has met",
              "AcceptLoss.APageMetByAnAttempt*")
PCACHE_MUTANT(log_trusted_again, "15",
              "accept_loss goes by the log alone though it reads otherwise than at activation",
              "AcceptLoss.WhatReadsHaveShown*")
PCACHE_MUTANT(clean_trusted_at_resume, "-",
              "a cache that a resume makes read-only serves clean data of before the disk changed",
              "ReadOnlyResume.*WasChangedWhileSuspended")
PCACHE_MUTANT(disk_change_no_news, "-",
              "accept_loss goes over a disk of which only it has seen that it was changed",
              "ReadOnlyResume.AcceptLossIsRefused*")
PCACHE_MUTANT(given_up_taken_for_clean, "15",
              "a shorter table drops dirty data that only the index of a read-only cache has",
              "ReadOnlyResumeOfAWholeLog.WhatWasGivenUp*")
PCACHE_MUTANT(read_only_disk_not_learned, "-",
              "a device that is changed behind a suspended read-only cache is not noticed",
              "ReadOnlyResume.AChangeIsNoticed*")
PCACHE_MUTANT(
    noflush_resume_looks, "41",
    "a noflush suspend and its resume read the backing device, to look whether it changed",
    "ReadOnlyResume.ANoflush*")
PCACHE_MUTANT(
    refused_one_halts, "41",
    "a suspend at the end of an accept_loss halts write-back, and those who wait are not served",
    "AcceptLossAndRemoval.ASuspendAtItsVeryEnd*")
PCACHE_MUTANT(read_only_table_not_fitted, "-",
              "a read-only cache takes a shorter table and keeps what it has beyond",
              "ReadOnlyResume.CleanDataBeyond*")
PCACHE_MUTANT(
    rescue_notes_nothing, "15",
    "segments in which only accept_loss found bad pages are left to the new cache as they are",
    "UnreadableSegments.WhatTheRescueOfTheIndex*")
PCACHE_MUTANT(relog_stops_at_a_write, "50",
              "a write over the beginning of lost data hides the rest of it from logging again",
              "Relog.AWriteOverTheBeginning*")
PCACHE_MUTANT(relogged_as_clean, "50", "what is lost is logged again as CLEAN",
              "Poison.WhatIsLostIsLostInTheNextLifeToo")
PCACHE_MUTANT(logged_again_forgotten, "50", "replay does not see that a key was logged again",
              "Poison.GcOfTheOlderKey*")
PCACHE_MUTANT(rescue_merges_epochs, "8, 48", "accept_loss sends several epochs at once",
              "AcceptLoss.EpochsGoInOrderWithAFlushBetween")

/* GC */
PCACHE_MUTANT(no_grace_period, "5", "a segment is free while a reader may be in it",
              "Rules.ASegmentIsNotFreed*")
PCACHE_MUTANT(key_tail_behind, "1, 5", "segments are freed although key tail still names them",
              "sim")
PCACHE_MUTANT(generation_not_stored, "5, 12",
              "a segment is used again with the generation that it had on media",
              "Rules.ASegmentIsNotFreed*")
PCACHE_MUTANT(unmap_left_out, "5", "what GC passed stays in the index", "sim")
PCACHE_MUTANT(keys_of_a_pass_forgotten, "56", "GC takes out only what its pass read last",
              "Gc/GcTest.ARecordThatGoesBadDuringItsPass*")
PCACHE_MUTANT(hole_ends_at_dirty_tail, "59",
              "a pass of GC that meets a hole goes on up to dirty tail, whatever its own end",
              "Gc/GcShorterTable.*")
PCACHE_MUTANT(beyond_the_table_kept, "-",
              "keys that could not be read keep clean data beyond a shorter table",
              "Gc/GcShorterTable.*")
PCACHE_MUTANT(generations_without_yield, "62", "GC stores all generations in one go",
              "Gc.ManyGenerations*")
PCACHE_MUTANT(newer_data_unmapped, "-", "GC takes out what overrode the key that it passed", "sim")

/* life cycle */
PCACHE_MUTANT(workers_do_not_sleep, "28", "a suspend of the machine leaves the workers at work",
              "Sleep.NothingTouchesEitherDevice*")
PCACHE_MUTANT(batch_not_halted_for_sleep, "28",
              "a suspend of the machine waits for the whole batch",
              "Sleep.ABatchInHandEndsWithWhatIsInFlight")
PCACHE_MUTANT(paced_while_halted, "28",
              "while write-back is halted two works kick each other without end",
              "Sleep.NoTwoWorkersKeepEachOtherAwake")
PCACHE_MUTANT(rebuilt_stays_awake, "28",
              "a cache that accept_loss makes anew beside a suspend of the machine stays awake",
              "Sleep.ACacheThatIsMadeAnew*")
PCACHE_MUTANT(workers_sleep_on, "28", "workers are not woken behind a suspend of the machine",
              "Sleep.*")
PCACHE_MUTANT(image_of_a_running_cache, "-", "the machine is hibernated with a running cache",
              "Sleep.HibernationIsRefused*")
PCACHE_MUTANT(activated_in_hibernation, "-", "a cache is activated while the machine is hibernated",
              "Sleep.NoCacheIsActivatedDuringHibernation")
PCACHE_MUTANT(workers_not_stopped, "28", "a suspended device still works", "sim")
PCACHE_MUTANT(staged_left_at_stop, "10", "a clean stop leaves staged keys out of the log",
              "Rules.OfTwoStagedWrites*")
PCACHE_MUTANT(stop_flush_ignored, "10", "a clean stop although the backing device failed its FLUSH",
              "Rules.WhoStopsOver*")
PCACHE_MUTANT(suspend_halts_at_once, "41", "write-back halts when a flush suspend begins", "sim")
PCACHE_MUTANT(suspend_waits_for_rescue, "41", "accept_loss goes on when a suspend begins",
              "AcceptLoss.EndsWhenASuspendBeginsAndTwoAtOnceAreSafe")
PCACHE_MUTANT(remove_waits_for_no_message, "41, 19", "a removal does not wait for accept_loss",
              "AcceptLossAndRemoval.ARemoval*")
PCACHE_MUTANT(rebuild_ends_suspend, "41", "accept_loss takes a suspend back that began meanwhile",
              "AcceptLossAndRemoval.ASuspend*")
PCACHE_MUTANT(rebuilt_not_halted, "41",
              "a cache that accept_loss makes anew in a noflush suspend writes back",
              "AcceptLossAndRemoval.ACacheThatIsMadeAnew*")
PCACHE_MUTANT(removal_waits_for_accept_loss, "-",
              "accept_loss goes on storing to a cache device that is being removed",
              "AcceptLossAndRemoval.EndsWithTheStep*")
PCACHE_MUTANT(home_not_closed, "-",
              "a table is destroyed and the cache whose home it is stays open", "Tables.*")
PCACHE_MUTANT(removal_not_heard, "-", "the notice that the cache device goes is not heard",
              "Removal.*")
PCACHE_MUTANT(failed_not_resumed, "-", "the resume of a failed cache is refused", "Removal.*")
PCACHE_MUTANT(accepted_while_suspended, "-", "accept_loss begins on a suspended device",
              "AcceptLoss.*Suspended*")
PCACHE_MUTANT(grown_media_refused, "-", "a reload is refused when the cache device has grown",
              "Target.*")
PCACHE_MUTANT(second_user_let_in, "32", "two devices on one cache",
              "Target.SecondTableOnTheSameCacheDeviceIsRefused")
PCACHE_MUTANT(copies_let_in, "32", "a copy of an active cache is taken",
              "LifeCycle.ACopyOfAnActive*")
